"""The shapes and value ranges that the whole package speaks in.

Axis legend: batch = images of one call, class = the K labels, feature = the d numbers after global average pooling,
slot = a class's places in the replay buffer, step = updates of one chain.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
"""Always in the model range [-1, 1]; the unit range [0, 1] exists only in files and attacks."""
RawImages = UInt8[Tensor, "batch channel height width"]
"""Images as they are kept: 0..255."""
Labels = Int[Tensor, " batch"]
Features = Float[Tensor, "batch feature"]
Latents = Float[Tensor, "batch feature"]
Logits = Float[Tensor, "batch class"]
Energies = Float[Tensor, " batch"]
Means = Float[Tensor, "class feature"]
Trace = Float[Tensor, "step batch"]
"""Energies that a sampler met on its way, one row before each update."""
Weights = Float[Tensor, "replicate batch"]
"""How often each image counts, one row a bootstrap replicate."""
Scalar = Float[Tensor, ""]
Displacements = Float[Tensor, " batch"]
"""Root mean squared change of each image's pixels, in the model range."""
Flag = Bool[Tensor, ""]
Mask = Bool[Tensor, "#batch 1 height width"]
"""True where a pixel is known."""
EnergyFn = Callable[[Images], Energies]

INTEGERS, NUMBERS = Lt(2**63), Le(3.4028234663852886e38)
"""What tensors hold, int64 and float32: the bounds of every value of a recipe."""
Count = Annotated[int, Ge(1), INTEGERS]
Natural = Annotated[int, Ge(0), INTEGERS]
Layers = Annotated[int, Ge(1), Le(1000)]
Channels = Annotated[int, Ge(1), Le(4096)]
"""More is a slip of the keyboard, and would be hours of building before anything can be said of it."""
Positive = Annotated[float, Gt(0), NUMBERS]
NonNegative = Annotated[float, Ge(0), NUMBERS]
Factor = Annotated[float, Gt(0), Le(1)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]


class Batch(NamedTuple):
    """Images with their labels."""

    images: Images
    labels: Labels
    clean: Images | None = None
    """The same images without crop and mirror, for objectives that ask for them."""


class Negatives(NamedTuple):
    """Where the chains of one training step arrived, the energies they met, and how far they got."""

    images: Images
    labels: Labels
    trace: Trace
    moved: Displacements


class Loss(NamedTuple):
    """A scalar to minimise and the detached numbers worth logging beside it."""

    total: Scalar
    parts: dict[str, Scalar]


def to_model(raw: Tensor) -> Tensor:
    """Map bytes 0..255 to the model range [-1, 1] as float32."""
    return raw.float().mul_(2 / 255).sub_(1)


def to_bytes(images: Tensor) -> Tensor:
    """Map the model range [-1, 1] to bytes 0..255: rounded to the nearest and clamped."""
    return images.add(1).mul_(255 / 2).round_().clamp_(0, 255).byte()
