"""Persistent chains (Alg. 1): draw from the buffer, sometimes start afresh, sample, write back."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, cast

import torch

from gmmcli.core import protocols
from gmmcli.core.buffer import Dtype, ReplayBuffer
from gmmcli.core.classifier import Classifier, frozen
from gmmcli.core.samplers import SAMPLERS, SGLD, changed
from gmmcli.core.starts import STARTS, Uniform
from gmmcli.core.targets import TARGETS, Conditional, StagedLatent
from gmmcli.types import Count, Displacements, Images, Labels, Natural, Negatives, NonNegative, Share, Trace

CHUNK = 256  # fresh chains at a time; each is independent of its company


@dataclass(frozen=True)
class PersistentChains:
    """The chains of a training: their places, where they set out, and their rule."""

    buffer: ReplayBuffer
    starts: protocols.Starts
    target: protocols.Target
    sampler: protocols.Sampler
    reinit_prob: float
    relabel: bool = False

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> Negatives:
        """Advance one chain per label by one visit and return where they arrived."""
        places = labels  # of the buffer: a chain's class, unless it gets another label at every visit
        if self.relabel:
            places = torch.randint(len(self.buffer.images), labels.shape, generator=generator, device=labels.device)
        slots, images = self.buffer.draw(places, generator)
        fresh = torch.rand(labels.shape, generator=generator, device=labels.device) < self.reinit_prob
        # a start for every chain, though few set out afresh: to draw for those few, the host would wait to learn how many they are
        before = torch.where(fresh[:, None, None, None], self.starts(labels, generator), images)
        images, trace = visit(model, self.target, self.sampler, labels, before, generator)
        self.buffer.write(places, slots, images)
        return Negatives(images, labels, trace, displacement(before, images))


def displacement(before: Images, after: Images) -> Displacements:
    """Return how far each image moved: the root of its pixels' mean squared change, in the model range."""
    return (after - before).square().mean((1, 2, 3)).sqrt()


def visit(
    model: Classifier, target: protocols.Target, sampler: protocols.Sampler, labels: Labels, images: Images, generator: torch.Generator
) -> tuple[Images, Trace]:
    """Run the sampler once on a frozen model: one visit to the chains at ``images``, at a target drawn for it."""
    with frozen(model):
        return sampler(target(model, labels, generator), images, generator)


@dataclass(frozen=True)
class Chains:
    """The ``[chains]`` table."""

    buffer_size: Count = 100_000
    """Slots in all; a multiple of the number of classes."""
    reinit_prob: Share = 0.025
    """Probability that a visit starts its chain afresh."""
    relabel: bool = False
    """Give a chain a new label at every visit, that of the real image it is drawn for, as IGEBM's code does; otherwise it keeps its class.

    A class-conditional energy without a classification loss learns what a wrong label is from such chains alone.
    """
    dtype: Dtype = "float32"
    """How the buffer keeps images, in memory and in checkpoints."""
    fresh_steps: Natural = 0
    """Updates of a chain that starts afresh when samples are drawn; 0: a training chain's mean lifetime."""
    fresh_noise_std: NonNegative = 0.0
    """Pixel noise with which such a chain sets out; it falls linearly to the sampler's own by the end.

    Chains without noise end in the first local minimum they meet; annealed noise lets them out of the shallow ones.
    """
    start: Annotated[protocols.Start, STARTS] = field(default_factory=Uniform)
    target: Annotated[protocols.Target, TARGETS] = field(default_factory=StagedLatent)
    sampler: Annotated[protocols.Sampler, SAMPLERS] = field(default_factory=SGLD)

    def __post_init__(self) -> None:
        for name in {"n_steps", "noise_std", "step_size"} - {spec.name for spec in fields(cast(Any, self.sampler))}:
            raise ValueError(f"{name} must be a key of sampler {self.sampler.kind}: samples are drawn with other values of it")

    @property
    def lifetime(self) -> int:
        """How long a fresh chain runs: ``fresh_steps``, or the expected number of updates between two fresh starts in training."""
        if self.fresh_steps:
            return self.fresh_steps
        if not self.reinit_prob:
            return 100 * self.sampler.n_steps
        return round(min(self.sampler.n_steps / self.reinit_prob, 2.0**62))  # of a denormal number the quotient is infinite

    @property
    def classless(self) -> bool:
        """Whether a chain's place in the buffer says nothing of its class."""
        return self.relabel or not self.target.uses_labels

    @property
    def of_classes(self) -> "Chains":
        """These chains for samples of a class: JEM trains without labels, and draws a class by its own energy."""
        return self if self.target.uses_labels else replace(self, target=Conditional())

    def slots(self, n_classes: int) -> int:
        """Return the slots per class; raises ValueError when the classes cannot share them evenly."""
        if self.buffer_size % n_classes:
            nearest = max(1, round(self.buffer_size / n_classes)) * n_classes
            raise ValueError(
                f"chains.buffer_size {self.buffer_size} does not divide by {n_classes} classes; the nearest that does is {nearest}"
            )
        return self.buffer_size // n_classes

    def build(self, starts: protocols.Starts, n_classes: int, generator: torch.Generator) -> PersistentChains:
        """Build chains that have all just set out; raises ValueError like ``slots``."""
        return self.around(ReplayBuffer.started(starts, n_classes, self.slots(n_classes), self.dtype, generator), starts)

    def around(self, buffer: ReplayBuffer, starts: protocols.Starts) -> PersistentChains:
        """Build chains over a buffer that exists already."""
        return PersistentChains(buffer, starts, self.target, self.sampler, self.reinit_prob, self.relabel)


def fresh_samples(
    model: Classifier, chains: Chains, starts: protocols.Starts, labels: Labels, generator: torch.Generator, n_steps: int | None = None
) -> Images:
    """Draw one image per label, from its start on, with the chains' own rule.

    A chain makes the visits that it would make in training, each with its own target, until ``n_steps`` updates are done;
    ``chains.fresh_noise_std`` is annealed from the first visit to the last, which is without it.

    Args:
        model: the classifier, on the generator's device.
        chains: the recipe's table.
        starts: where chains set out, on the generator's device.
        labels: the class of each image.
        generator: of starts, latents and noise.
        n_steps: updates in all, 0 for the starts themselves; ``chains.lifetime`` by default.

    Returns:
        Images in the model range.
    """
    images = starts(labels, generator)
    left = total = chains.lifetime if n_steps is None else n_steps
    while left:
        n_visit = min(left, chains.sampler.n_steps)
        noise_std = max(chains.sampler.noise_std, chains.fresh_noise_std * (left - n_visit) / total)
        sampler = changed(chains.sampler, n_steps=n_visit, noise_std=noise_std)
        images, _ = visit(model, chains.target, sampler, labels, images, generator)
        left -= sampler.n_steps
    return images
