"""What the parts of a recipe have in common: what each must offer, in which shapes, and who calls it.

A part is a frozen dataclass whose fields are the keys of its table. The kinds there are form a union in the part's own file, which the
schema reads; the code that runs them asks for no more than what is written here.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gmmcli.core.classifier import Classifier
from gmmcli.types import Batch, EnergyFn, Images, Labels, Loss, Negatives, RawImages, Trace


@runtime_checkable
class Backbone(Protocol):
    """``[model.backbone]``; ``Model`` builds it, ``Recipe.check`` asks for its features."""

    @property
    def dim(self) -> int:
        """The number of features d."""

    def build(self, channels: int) -> nn.Module:
        """Build a network of images (batch, channel, height, width) in [-1, 1] to features (batch, d); weights from torch's generator."""


@runtime_checkable
class Head(Protocol):
    """``[model.head]``; ``Model`` builds it."""

    @property
    def has_means(self) -> bool:
        """Whether its logits are those of Gaussians, with class means; targets and objectives may need them."""

    def build(self, n_classes: int, dim: int) -> nn.Module:
        """Build a map of features (batch, d) to unscaled logits (batch, class); ValueError where the classes do not fit."""


@runtime_checkable
class Target(Protocol):
    """``[chains.target]``: what chains descend; ``chains.visit`` calls it, once a visit."""

    @property
    def needs_means(self) -> bool:
        """Whether only a head with class means will do."""

    @property
    def uses_labels(self) -> bool:
        """Whether a chain's energy is that of its class."""

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return a function of images (batch, channel, height, width) to energies (batch,), for one image per label."""


@runtime_checkable
class Sampler(Protocol):
    """``[chains.sampler]``: how chains move; ``chains.visit`` calls it, ``fresh_samples`` with other steps and noise."""

    @property
    def n_steps(self) -> int:
        """Updates in one call."""

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of every update, in the model range."""

    def __call__(self, energy: EnergyFn, images: Images, generator: torch.Generator) -> tuple[Images, Trace]:
        """Return where the chains arrived, and the energies before each update, shape (step, batch); ``images`` stay untouched."""


@runtime_checkable
class Starts(Protocol):
    """A distribution over images, one for each class; chains that set out draw from it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width)."""

    def __call__(self, labels: Labels, generator: torch.Generator) -> Images:
        """Draw one image per label."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep to draw without the data."""


@runtime_checkable
class Start(Protocol):
    """``[chains.start]``: from where chains set out; ``Setup`` fits it once, to the training images."""

    def fit(self, images: RawImages, labels: Labels, n_classes: int, seed: int) -> Starts:
        """Fit the distribution to byte images (n, channel, height, width), on their device."""


@runtime_checkable
class Objective(Protocol):
    """``objective`` of a stage: what a training step minimises; ``training_step`` calls it, once or twice with sharpness-aware steps."""

    @property
    def needs_means(self) -> str:
        """Why a head without class means will not do; empty where it does."""

    @property
    def marginal(self) -> bool:
        """Whether its energies are E(x), not E(x, y)."""

    @property
    def needs_negatives(self) -> bool:
        """Whether it trains on chains."""

    @property
    def clean_positive(self) -> bool:
        """Whether the batch must hold the images as they are as well, neither cropped nor mirrored."""

    def __call__(self, model: Classifier, batch: Batch, negatives: Negatives | None, ramp: float = 1.0) -> Loss:
        """Return the loss, a scalar with its graph, and detached parts to log. ``ramp``, 0 to 1, scales the weight of the density."""
