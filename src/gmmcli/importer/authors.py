"""What the authors' checkpoints hold: GMMC's (sndnyang/GMMC, train_gmmc.py) and JEM's (wgrathwohl/JEM, train_wrn_ebm.py).

Both networks are the same Wide-ResNet for colour images of 32 x 32, whose layers have other names than ours.
"""

from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from gmmcli.core.heads import LDA, Linear, MaxMahalanobis
from gmmcli.core.means import max_mahalanobis_means
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.errors import CheckpointError
from gmmcli.importer.pickled import Record, Strided
from gmmcli.importer.torch_file import TorchFile

SHAPE = (3, 32, 32)
"""Of the images: the authors' network averages 8 x 8 positions after two halvings."""
UNUSED = ("f.linear.", "energy_output.")
"""Layers of JEM that it trains nothing with."""
PARTS = {"norm1": "bn1", "norm2": "bn2", "shortcut": "shortcut.0"}
MAX_BLOCKS = 100
"""In each of the three groups: depth 604."""
TOLERANCE = 1e-3
"""Of the simplex, relative to the length of the means: the authors compute it in float32."""


@dataclass(frozen=True)
class Imported:
    """A model of the authors under our names, and the chains beside it."""

    origin: Literal["GMMC", "JEM"]
    model: Model
    weights: dict[str, Tensor]
    n_classes: int
    buffer: Tensor | None
    """Shape (class, slot, channel, height, width)."""
    left_out: str
    """What of the replay buffer was left out and why, a sentence; empty where nothing was."""


def read(file: TorchFile) -> Imported:
    """Read a checkpoint; CheckpointError where it is neither GMMC's nor JEM's, or holds numbers that are not finite."""
    saved = _table(file.object, "it")
    state = _table(saved.get("model_state_dict", saved), "model_state_dict")
    backbone, weights = _backbone(file, state)
    head: MaxMahalanobis | LDA | Linear
    if "margin" in saved:
        means = _read(file, _centers(saved["margin"]), "centers", (None, backbone.dim))
        origin, head, n_classes = "GMMC", _gaussians(means), len(means)
        weights["head.means"] = means
    elif "class_output.weight" in state:
        weight = _read(file, state["class_output.weight"], "class_output.weight", (None, backbone.dim))
        origin, head, n_classes = "JEM", Linear(), len(weight)
        weights["head.weight"] = weight
        weights["head.bias"] = _read(file, state.get("class_output.bias"), "class_output.bias", (n_classes,))
    else:
        raise CheckpointError("it has neither GMMC's margin nor JEM's class_output, so that its classes are unknown")
    if n_classes < 2:
        raise CheckpointError(f"it has {n_classes} classes, and a classifier needs two")
    buffer, left_out = _buffer(file, saved.get("replay_buffer"), n_classes)
    return Imported(origin, Model(backbone, head), weights, n_classes, buffer, left_out)  # type: ignore[arg-type]  # one of the two words


def _backbone(file: TorchFile, state: dict[str, Any]) -> tuple[WideResNet, dict[str, Tensor]]:
    """Deduce depth, width and norm from the names and shapes, and read the weights."""
    n = next(i for i in count() if f"f.layer1.{i}.conv1.weight" not in state)
    widest = state.get("f.layer3.0.conv1.weight")
    channels = widest.size[0] if isinstance(widest, Strided) and widest.size else 0
    if not 1 <= n <= MAX_BLOCKS or not channels or channels % 64:
        raise CheckpointError("it has no Wide-ResNet under the names of GMMC and JEM: f.conv1, f.layer1.0.conv1, and so on")
    batch = "f.bn1.running_mean" in state
    if not batch and any(".bn" in name for name in state):
        raise CheckpointError("its norm is neither none nor batch norm, and gmmc has no other of the authors' norms")
    backbone = WideResNet(depth=6 * n + 4, width=channels // 64, norm="batch" if batch else "none")
    with torch.device("meta"):  # names and shapes alone: a small file must not make gmmc build a large network
        expected = backbone.build(SHAPE[0]).state_dict()
    theirs = {ours: _their_name(ours, n) for ours in expected}
    unknown = [name for name in state if name not in theirs.values() and not name.startswith((*UNUSED, "class_output."))]
    if unknown:
        raise CheckpointError(f"it has {unknown[0][:100]!r}, which a WRN-{backbone.depth}-{backbone.width} of GMMC or JEM has not")
    weights = {
        f"backbone.{ours}": _read(file, state.get(theirs[ours]), theirs[ours], tuple(like.shape), like.dtype)
        for ours, like in expected.items()
    }
    return backbone, weights


def _their_name(ours: str, n: int) -> str:
    """The authors' name of a tensor of the backbone: ``blocks.5.norm1.weight`` is ``f.layer2.1.bn1.weight`` where n is 4."""
    layer, *rest = ours.split(".")
    if layer != "blocks":
        return ".".join(["f", {"stem": "conv1", "norm": "bn1"}[layer], *rest])
    block, part, name = rest
    group, place = divmod(int(block), n)
    return f"f.layer{group + 1}.{place}.{PARTS.get(part, part)}.{name}"


def _centers(margin: Any) -> Any:
    """The class means of a layer, or of its state dict."""
    if isinstance(margin, Record):
        margin = margin.state.get("_parameters")
    return _table(margin, "margin").get("centers")


def _gaussians(means: Tensor) -> MaxMahalanobis | LDA:
    """The head that has these means: fixed ones where they are the simplex, else learnt ones. Either takes the means of the file itself."""
    n_classes, dim = means.shape
    radius = float(f"{means.norm(dim=1).mean():.4g}")
    if not 2 <= n_classes <= dim + 1 or not radius:
        raise CheckpointError(f"its centers are {n_classes} in {dim} dimensions, {radius} long on average: no class means")
    simplex = max_mahalanobis_means(n_classes, dim, radius)
    fixed = torch.allclose(means, simplex, rtol=0, atol=TOLERANCE * radius)
    return MaxMahalanobis(radius=radius) if fixed else LDA(radius=radius)


def _buffer(file: TorchFile, saved: Any, n_classes: int) -> tuple[Tensor | None, str]:
    """The chains by class, and what was left out: GMMC's as many of each class as the rarest has, JEM's by their places."""
    match saved:
        case None | []:
            return None, ""
        case Strided():
            stored, stored_labels = saved, None
        case [Strided() as stored, Strided() as stored_labels]:
            pass
        case _:
            return None, "the replay buffer is left out: it is neither a tensor nor a list of images and labels"
    if stored.size[1:] != SHAPE or not stored.size[0]:
        return None, f"the replay buffer is left out: its shape is {stored.size}, not (n, 3, 32, 32)"
    images = file.tensor(stored).float()
    n = len(images)
    labels = torch.arange(n) * n_classes // n if stored_labels is None else file.tensor(stored_labels)
    if not bool(images.isfinite().all()):
        return None, "the replay buffer is left out: it holds numbers that are not finite"
    if labels.dtype != torch.int64 or labels.shape != (n,) or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        return None, f"the replay buffer is left out: its labels are not {n:,} numbers from 0 to {n_classes - 1}"
    counts = torch.bincount(labels, minlength=n_classes)
    slots = int(counts.min())
    if not slots:
        return None, f"the replay buffer is left out: it has no image of class {int(counts.argmin())}"
    first = counts.cumsum(0) - counts
    places = labels.argsort(stable=True)[first[:, None] + torch.arange(slots)]
    dropped = n - n_classes * slots
    why = f"{dropped:,} of the {n:,} images of the replay buffer are left out: each class has as many as the rarest" if dropped else ""
    return images[places], why


def _read(file: TorchFile, value: Any, name: str, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Read a tensor of finite numbers, of this shape but for axes that are None."""
    if not isinstance(value, Strided):
        raise CheckpointError(f"{name} is missing")
    if len(value.size) != len(shape) or any(want not in (None, size) for want, size in zip(shape, value.size, strict=True)):
        wanted = tuple("n" if size is None else size for size in shape)
        raise CheckpointError(f"{name} has the shape {value.size}, not {wanted}".replace("'", ""))
    tensor = file.tensor(value)
    if tensor.is_floating_point() != dtype.is_floating_point:
        raise CheckpointError(f"{name} has numbers of type {tensor.dtype}")
    tensor = tensor.to(dtype).contiguous()
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{name} holds numbers that are not finite: the training that saved it had diverged")
    return tensor


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CheckpointError(f"{name} is no dictionary of names")
    return value
