"""What the parts of a recipe have in common: what each must offer, in which shapes, and who calls it.

A part is a frozen dataclass whose fields are the keys of its table. The kinds that there are form a registry in the part's own file, which
other packages add to (docs/extending.md); the code that runs them asks for no more than what is written here, and the schema refuses a part
that offers less.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gmmcli.core.classifier import Classifier
from gmmcli.types import Batch, EnergyFn, Images, Labels, Loss, Negatives, RawImages, Trace


class Part(Protocol):
    """What every part has."""

    @property
    def kind(self) -> str:
        """The name by which a recipe chooses it: a field, whose default is the name in the registry."""


@runtime_checkable
class Backbone(Part, Protocol):
    """``[model.backbone]``; ``Model`` builds it, ``Recipe.check`` asks for its features.

    Where there is a field ``norm``, "batch" is taken to mean batch norm; where there is a field ``width``, to be in proportion to ``dim``.
    """

    @property
    def dim(self) -> int:
        """The number of features d."""

    def build(self, channels: int) -> nn.Module:
        """Build a network of images (batch, channel, height, width) in [-1, 1] to features (batch, d); weights from torch's generator."""


@runtime_checkable
class Head(Part, Protocol):
    """``[model.head]``; ``Model`` builds it."""

    @property
    def has_means(self) -> bool:
        """Whether its logits are those of Gaussians, with class means; targets and objectives may need them."""

    def build(self, n_classes: int, dim: int) -> nn.Module:
        """Build a map of features (batch, d) to unscaled logits (batch, class); ValueError where the classes do not fit.

        With ``has_means`` it has an attribute ``means``, shape (class, d), and its logits are -1/2 the squared distances to them.
        """


@runtime_checkable
class Target(Part, Protocol):
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
class Sampler(Part, Protocol):
    """``[chains.sampler]``: how chains move; ``chains.visit`` calls it.

    Its three numbers are fields: samples are drawn with other ones than chains were trained with.
    """

    @property
    def n_steps(self) -> int:
        """Updates in one call."""

    @property
    def step_size(self) -> float:
        """How far an update goes, by a measure of its own."""

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
class Start(Part, Protocol):
    """``[chains.start]``: from where chains set out; ``Setup`` fits it once, to the training images."""

    def fit(self, images: RawImages, labels: Labels, n_classes: int, seed: int) -> Starts:
        """Fit the distribution to byte images (n, channel, height, width), on their device."""

    def restored(self, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> Starts:
        """Rebuild what was fitted from its ``tensors()``, for images of this shape."""


@runtime_checkable
class Objective(Part, Protocol):
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


@runtime_checkable
class Optim(Part, Protocol):
    """``[optim]``, and that of a stage; ``training_step`` and ``TrainState`` call it. ``core.optim.Updates`` has all but ``build``."""

    @property
    def sam_rho(self) -> float:
        """Radius of sharpness-aware minimisation; 0: off."""

    @property
    def sam_adaptive(self) -> bool:
        """Whether that radius is relative to each weight."""

    @property
    def ema_decay(self) -> float:
        """What the average of weights keeps of itself in an update; 0: there is none."""

    def rate(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        """Return the learning rate of a step, from 0 to ``n_steps - 1``."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimiser: one that leaves weights and moments alone where its ``found_inf`` is 1, as torch's fused ones do."""
