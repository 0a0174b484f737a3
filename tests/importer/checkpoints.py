"""Files as the authors' code writes them: their network, rebuilt from its description, and torch.save in both formats."""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmmcli.core.means import max_mahalanobis_means

Form = Literal["zip", "legacy"]
FORMS: tuple[Form, ...] = ("zip", "legacy")


class Nothing(nn.Module):
    """A norm or dropout that does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class WideBasic(nn.Module):
    """A block: norm, LeakyReLU 0.2 and a 3 x 3 convolution, twice; the second one strides."""

    def __init__(self, inputs: int, outputs: int, stride: int, batch: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, momentum=0.9) if batch else Nothing()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.dropout = Nothing()
        self.bn2 = nn.BatchNorm2d(outputs, momentum=0.9) if batch else Nothing()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.leaky_relu(self.bn1(x), 0.2))
        out = self.conv2(F.leaky_relu(self.bn2(out), 0.2))
        return out + self.shortcut(x)


class WideResNet(nn.Module):
    """A stem, three groups, the last norm, and the mean over 8 x 8 positions; JEM's has a linear layer that it never uses."""

    def __init__(self, depth: int, width: int, batch: bool, linear: bool) -> None:
        super().__init__()
        n, widths = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        for group in (1, 2, 3):
            inputs, outputs, stride = widths[group - 1], widths[group], 1 if group == 1 else 2
            blocks = [WideBasic(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1, batch) for i in range(n)]
            setattr(self, f"layer{group}", nn.Sequential(*blocks))
        self.bn1 = nn.BatchNorm2d(widths[3], momentum=0.9) if batch else Nothing()
        if linear:
            self.linear = nn.Linear(widths[3], 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return F.avg_pool2d(F.leaky_relu(self.bn1(out), 0.2), 8).flatten(1)


class GMMC(nn.Module):
    """The network of GMMC's code: features only."""

    def __init__(self, depth: int = 10, width: int = 1, batch: bool = False) -> None:
        super().__init__()
        self.f = WideResNet(depth, width, batch, linear=False)


class JEM(nn.Module):
    """The network of JEM's code."""

    def __init__(self, depth: int = 10, width: int = 1, batch: bool = False) -> None:
        super().__init__()
        self.f = WideResNet(depth, width, batch, linear=True)
        self.energy_output = nn.Linear(64 * width, 1)
        self.class_output = nn.Linear(64 * width, 10)

    def classify(self, images: Tensor) -> Tensor:
        logits: Tensor = self.class_output(self.f(images))
        return logits


def settle(model: nn.Module) -> nn.Module:
    """A model in evaluation mode whose batch norm has seen images and is not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        model.f(torch.rand(16, 3, 32, 32) * 2 - 1)
    return model.eval()


@contextmanager
def known_as(name: str) -> Iterator[type[nn.Module]]:
    """The class of GMMC's layer of means, as ``LDALayer.LDALayer`` say: for as long as a file is written."""
    module, _, class_name = name.rpartition(".")
    spec = spec_from_file_location(module, Path(__file__).with_name("lda_layer.py"))
    assert spec and spec.loader
    loaded = module_from_spec(spec)
    written = {module: loaded, module.partition(".")[0]: loaded}
    sys.modules.update(written)
    spec.loader.exec_module(loaded)
    try:
        yield vars(loaded)[class_name]
    finally:
        for known in written:
            del sys.modules[known]


def margin(centers: Tensor, layer: type[nn.Module]) -> nn.Module:
    """A layer with these means."""
    made = layer(*centers.shape)
    made.centers.data = centers
    return made


def simplex(n_classes: int = 10, dim: int = 64) -> Tensor:
    return max_mahalanobis_means(n_classes, dim, 10.0)


def replay_buffer(n: int = 20, n_classes: int = 10) -> list[Tensor]:
    """Class-major images, each of one value that tells its place, and their labels."""
    values = torch.arange(n) / n
    return [values[:, None, None, None].expand(n, 3, 32, 32).clone(), torch.arange(n) * n_classes // n]


def save(document: Any, path: Path, form: Form) -> Path:
    torch.save(document, path, _use_new_zipfile_serialization=form == "zip")
    return path


def save_gmmc(
    path: Path,
    form: Form,
    model: nn.Module | None = None,
    *,
    centers: Tensor | None = None,
    buffer: Any = None,
    name: str = "LDALayer.LDALayer",
    **changes: Any,
) -> Path:
    """Write a file as GMMC's train_gmmc.py does; ``changes`` replace tensors of the weights, or remove them where they are None."""
    state = OrderedDict((model or GMMC()).state_dict())
    for key, value in changes.items():
        state[key] = value
        if value is None:
            del state[key]
    with known_as(name) as layer:
        document = {
            "model_state_dict": state,
            "replay_buffer": replay_buffer() if buffer is None else buffer,
            "margin": margin(simplex() if centers is None else centers, layer),
        }
        return save(document, path, form)


def write_things(path: Path, size: int = 32, n_classes: int = 10) -> str:
    """Three colour images of each of ten kinds for every split; return the data's name on a command line."""
    rng, labels = np.random.default_rng(0), np.arange(3 * n_classes) % n_classes
    arrays = {f"{split}_images": rng.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8) for split in ("train", "val", "test")}
    names = np.array([f"thing {k}" for k in range(n_classes)])
    np.savez(path, **arrays, **{f"{split}_labels": labels for split in ("train", "val", "test")}, class_names=names)
    return f"npz:{path}"
