"""The feature network: a pre-activation Wide-ResNet without its last linear layer."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from gmmcli.types import Channels, Features, Images, Layers

SLOPE = 0.2  # of LeakyReLU: a ReLU's flat half would leave chains without a gradient
Norm = Literal["none", "batch", "group"]
Downsample = Literal["stride", "avg-pool"]


class GroupNorm(nn.GroupNorm):
    """Group norm in the type of its weights, also under autocast: torch's bfloat16 kernel for channels-last images is slow on a cpu."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the groups of each image's channels; the result has the type of ``x``."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _normalise(kind: Norm, channels: int) -> nn.Module:
    match kind:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            return GroupNorm(min(8, channels), channels)
        case "none":
            return nn.Identity()


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)


class Block(nn.Module):
    """Two 3x3 convolutions, each after norm and LeakyReLU, around a shortcut; pooled first where ``pool`` says so."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, pool: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if pool else nn.Identity()
        self.norm1 = _normalise(norm, inputs)
        self.conv1 = _conv(inputs, outputs, 3)
        self.norm2 = _normalise(norm, outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / 2, width / 2) where it strides or pools, else the same size."""
        x = self.pool(x)
        h: Tensor = self.conv1(F.leaky_relu(self.norm1(x), SLOPE))
        h = self.conv2(F.leaky_relu(self.norm2(h), SLOPE))
        shortcut: Tensor = self.shortcut(x)
        return h + shortcut


class WideResNetFeatures(nn.Module):
    """Images to pooled features: a stem and three groups of blocks, 16w, 32w and 64w wide."""

    def __init__(self, channels: int, depth: int, width: int, norm: Norm, stem: int, stem_stride: int, downsample: Downsample) -> None:
        super().__init__()
        widths, pools = [stem, 16 * width, 32 * width, 64 * width], downsample == "avg-pool"
        self.stem = _conv(channels, widths[0], 3, 1 if pools else stem_stride)
        self.pool = nn.Sequential(nn.LeakyReLU(SLOPE), nn.AvgPool2d(2, ceil_mode=True)) if pools and stem_stride == 2 else nn.Identity()
        self.blocks = nn.Sequential()
        for group, (inputs, outputs) in enumerate(pairwise(widths)):
            for block in range((depth - 4) // 6):
                first, halves = block == 0, block == 0 and group > 0
                self.blocks.append(Block(inputs if first else outputs, outputs, 2 if halves and not pools else 1, norm, halves and pools))
        self.norm = _normalise(norm, widths[-1])
        self.dim = widths[-1]

    def forward(self, images: Images) -> Features:
        """Return features phi(x), shape (batch, 64 w)."""
        return F.leaky_relu(self.norm(self.blocks(self.pool(self.stem(images)))), SLOPE).mean((2, 3))


@dataclass(frozen=True, kw_only=True)
class WideResNet:
    """Backbone table: WRN-depth-width (Zagoruyko and Komodakis 2016) as JEM and GMMC use it.

    Any square image from 8 x 8 up: two halvings and global average pooling.
    """

    kind: Literal["wide-resnet"] = "wide-resnet"
    depth: Layers = 28
    """6 n + 4 for n blocks in each of the three groups."""
    width: Channels = 10
    """Factor of the channels: 16, 32 and 64 times it in the three groups, and d = 64 width features."""
    norm: Norm = "none"
    """Before every activation: none (the paper's and JEM's), batch norm, or group norm with 8 groups of channels."""
    stem_stride: Literal[1, 2] = 1
    """2 halves the image at once: a quarter of the work, for machines without a GPU."""
    stem_width: Channels = 16
    """Channels of the first convolution. With stride 2 it sees all that the network will ever know of the fine detail."""
    downsample: Downsample = "stride"
    """stride: strided convolutions, as JEM and GMMC have it. avg-pool: 2 x 2 means before each later group, and after the stem where
    its stride is 2 (IGEBM, CLEL): the image's gradient then weighs all pixels alike, and chains grow no checkerboards."""
    spectral_norm: bool = False
    """Divide every convolution's weight by its largest singular value (Miyato et al. 2018), as IGEBM does."""
    init: Literal["torch", "kaiming"] = "torch"
    """torch: PyTorch's default, the paper's; its small features leave every energy near C^2 / 2 for long when there is no norm.
    kaiming: normal with LeakyReLU's gain (He et al. 2015), zero biases."""

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            nearest = max(10, 6 * round((self.depth - 4) / 6) + 4)
            raise ValueError(f"depth must be 6 n + 4 with n >= 1, got {self.depth}; the nearest is {nearest}")

    @property
    def dim(self) -> int:
        """The number of features d."""
        return 64 * self.width

    def build(self, channels: int) -> WideResNetFeatures:
        """Build the network for images with this many channels; its weights come from torch's global generator."""
        network = WideResNetFeatures(channels, self.depth, self.width, self.norm, self.stem_width, self.stem_stride, self.downsample)
        if self.init == "kaiming":
            network.apply(_kaiming)
        return network.apply(_spectral) if self.spectral_norm else network


def _kaiming(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, a=SLOPE)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _spectral(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.utils.parametrizations.spectral_norm(layer)
