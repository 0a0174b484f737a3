"""What a training step minimises: logits of real images, and for contrastive divergence those of the chains."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch.nn import functional as F

from gmmcli.core import protocols
from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import joint_energy, marginal_energy
from gmmcli.distributed import mean
from gmmcli.registry import Registry
from gmmcli.types import Batch, Labels, Logits, Loss, Negatives, NonNegative, Scalar


def _accuracy(logits: Logits, labels: Labels) -> Scalar:
    return (logits.detach().argmax(1) == labels).float().mean()


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """The softmax baseline: ``-log softmax(logits)[y]``."""

    needs_means: ClassVar[str] = ""
    marginal: ClassVar[bool] = False
    needs_negatives: ClassVar[bool] = False
    clean_positive: ClassVar[bool] = False
    kind: Literal["cross-entropy"] = "cross-entropy"

    def __call__(self, model: Classifier, batch: Batch, negatives: Negatives | None, ramp: float = 1.0) -> Loss:
        """Return the mean cross-entropy of the batch; beside it ``E(x)``, which JEM reads into the same logits."""
        logits = model(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        energy = marginal_energy(logits.detach()).mean()
        return Loss(loss, {"energy_data": energy, "accuracy": _accuracy(logits, batch.labels)})


@dataclass(frozen=True, kw_only=True)
class CenterRegression:
    """Discriminative GMMC: the batch mean of ``1/2 ||phi(x) - mu_y||^2`` (Eq. 5, Z taken as a constant)."""

    needs_means: ClassVar[str] = "objective center-regression needs class means, which a linear head does not have; use cross-entropy"
    """Why a head without class means will not do; empty where it does."""
    marginal: ClassVar[bool] = False
    needs_negatives: ClassVar[bool] = False
    clean_positive: ClassVar[bool] = False
    kind: Literal["center-regression"] = "center-regression"

    def __call__(self, model: Classifier, batch: Batch, negatives: Negatives | None, ramp: float = 1.0) -> Loss:
        """Return the mean joint energy of the batch."""
        logits = model(batch.images)
        energy = joint_energy(logits, batch.labels).mean()
        return Loss(energy, {"energy_data": energy.detach(), "accuracy": _accuracy(logits, batch.labels)})


class _Logits(NamedTuple):
    """The logits of a step: of the batch, of the images whose density is raised, and of the chains', with the labels of these."""

    batch: Logits
    positive: Logits
    negative: Logits
    negative_labels: Labels


@dataclass(frozen=True, kw_only=True)
class _Generative:
    """What the objectives with negatives share."""

    marginal: ClassVar[bool] = False
    """Whether its energies are E(x), not E(x, y)."""
    needs_negatives: ClassVar[bool] = True
    clean_positive: bool = False
    """Raise the density of the images as they are, and classify the cropped and mirrored ones (SADA-JEM, DAT): with one set for both,
    the model learns that reflected borders are part of the data."""
    separate_norm: bool = False
    """One forward each for real, sampled and clean images, in this order, so that batch norm in training mode normalises each by its own
    statistics, and its running statistics take one update for each: the algorithm of JEM's and GMMC's code. Without batch norm in training
    mode nothing changes but speed. false: one forward for all, with common statistics."""

    def _forward(self, model: Classifier, batch: Batch, negatives: Negatives | None) -> _Logits:
        """Real and sampled images share one forward, unless their statistics are to be separate; either way there is one backward."""
        if negatives is None:
            raise ValueError("a generative objective needs the negatives of the chains")
        images = [batch.images, negatives.images]
        if self.clean_positive:
            if batch.clean is None:
                raise ValueError("clean_positive needs a batch with clean images")
            images.append(batch.clean)
        parts = [model(part) for part in images] if self.separate_norm else model(torch.cat(images)).split([len(part) for part in images])
        return _Logits(parts[0], parts[2] if self.clean_positive else parts[0], parts[1], negatives.labels)


@dataclass(frozen=True, kw_only=True)
class ContrastiveDivergence(_Generative):
    """Generative GMMC: ``mean E(x, y) - beta mean E(x', y')`` over real and sampled images (Eqs. 6 and 7).

    ``E >= 0`` but nothing bounds it above, so the plain loss can run to infinity by pushing samples away. A ``margin``
    m > 0 bounds the negative phase: ``mean min(E(x'), max(m mean E(x), floor))`` with the bound detached. A sample whose
    energy is already above the bound gives no gradient; the floor keeps the bound up when the data's energy becomes small,
    or spurious minima between the two would never be filled.

    With ``clean_positive`` the loss is ``mean E(x_aug, y) + beta (mean E(x, y) - mean min(E(x'), bound))``: regression on augmented
    images beside a contrast between images as they are and samples.
    """

    kind: Literal["contrastive-divergence"] = "contrastive-divergence"
    beta: NonNegative = 0.5
    """Weight of the sampled energies (Table 8: 0.5). A stage's ramp scales it."""
    margin: NonNegative = 0.0
    """Bound of the negative phase in units of the batch's mean real energy; 0 is the paper's unbounded loss."""
    floor: NonNegative = 0.0
    """Energy below which the bound never falls."""
    l2: NonNegative = 0.0
    """IGEBM's alpha: adds ``l2 (mean E(x)^2 + mean E(x')^2)``, which holds energies near 0 (Du and Mordatch 2019, Sec. 3.2). The energies
    themselves: a margin does not bound them here."""

    @property
    def needs_means(self) -> str:
        """Why a head without class means will not do; empty where it does."""
        return "margin bounds energies that are never negative; with a linear head they may be: set margin = 0" if self.margin else ""

    def __post_init__(self) -> None:
        if self.floor and not self.margin:
            raise ValueError("floor is the least bound of a margin; without a margin nothing is bounded")

    def __call__(self, model: Classifier, batch: Batch, negatives: Negatives | None, ramp: float = 1.0) -> Loss:
        """Return the contrastive loss with ``beta`` scaled by ``ramp`` (joint training raises it from 0)."""
        logits = self._forward(model, batch, negatives)
        real, sampled = joint_energy(logits.positive, batch.labels), joint_energy(logits.negative, logits.negative_labels)
        energy_data, bounded = real.mean(), sampled
        parts = {
            "energy_data": energy_data.detach(),
            "energy_model": sampled.detach().mean(),
            "accuracy": _accuracy(logits.batch, batch.labels),
        }
        if self.margin:
            bound = (self.margin * mean(energy_data.detach())).clamp(min=self.floor)  # of the batch of all processes
            parts["below_bound"] = (sampled.detach() < bound).float().mean()
            bounded = sampled.clamp(max=bound)
        beta = ramp * self.beta
        if self.clean_positive:
            loss = joint_energy(logits.batch, batch.labels).mean() + beta * (energy_data - bounded.mean())
        else:
            loss = energy_data - beta * bounded.mean()
        if self.l2:
            loss = loss + self.l2 * (real.square().mean() + sampled.square().mean())
        return Loss(loss, parts)


@dataclass(frozen=True, kw_only=True)
class JointEnergyModel(_Generative):
    """JEM: ``CE(x, y) + beta (mean E(x) - mean E(x'))`` with ``E(x) = -logsumexp_y logits[y]`` (Grathwohl et al. 2020, Eqs. 5 and 9)."""

    needs_means: ClassVar[str] = ""
    marginal: ClassVar[bool] = True
    kind: Literal["jem"] = "jem"
    beta: NonNegative = 1.0
    """Weight of log p(x); 1 is JEM's. A stage's ramp scales it."""
    l2: NonNegative = 0.0
    """Adds ``l2 (mean E(x)^2 + mean E(x')^2)``: the authors' advice against divergence is about 0.1."""

    def __call__(self, model: Classifier, batch: Batch, negatives: Negatives | None, ramp: float = 1.0) -> Loss:
        """Return the loss."""
        logits = self._forward(model, batch, negatives)
        data, chains = marginal_energy(logits.positive), marginal_energy(logits.negative)
        cross_entropy = F.cross_entropy(logits.batch, batch.labels)
        loss = cross_entropy + ramp * self.beta * (data.mean() - chains.mean())
        if self.l2:
            loss = loss + self.l2 * (data.square().mean() + chains.square().mean())
        parts = {
            "energy_data": data.detach().mean(),
            "energy_model": chains.detach().mean(),
            "cross_entropy": cross_entropy.detach(),
            "accuracy": _accuracy(logits.batch, batch.labels),
        }
        return Loss(loss, parts)


OBJECTIVES: Registry[type[protocols.Objective]] = Registry(
    "objectives",
    {
        "cross-entropy": CrossEntropy,
        "center-regression": CenterRegression,
        "contrastive-divergence": ContrastiveDivergence,
        "jem": JointEnergyModel,
    },
)
