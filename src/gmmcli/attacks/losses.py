"""What an attack maximises, image by image. Targets are ranks: the r-th most likely wrong class of the clean image."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from gmmcli.registry import Registry
from gmmcli.types import Labels, Logits

PerImage = Callable[[Logits, Labels, Labels], Tensor]
"""(logits, true labels, target labels) -> one value an image."""


@dataclass(frozen=True)
class AttackLoss:
    """A loss, whether it aims at targets, and how many classes it needs."""

    value: PerImage
    targeted: bool = False
    n_classes: int = 2
    about: str = ""


def others(logits: Logits, labels: Labels) -> Logits:
    """Return the logits with that of the true class replaced by -inf."""
    return logits.scatter(1, labels[:, None], float("-inf"))


def margin(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """``max_{k != y} z_k - z_y``: positive when misclassified. Linear in the features for a Gaussian head, so it never saturates."""
    return others(logits, labels).amax(1) - logit_of(logits, labels)


def cross_entropy(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """``-log softmax(z)_y``: its gradient is exactly 0 in float32 from a gap of about 104 up."""
    return F.cross_entropy(logits, labels, reduction="none")


def dlr(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020): the margin over the gap between first and third logit."""
    ordered = logits.sort(1, descending=True).values
    return margin(logits, labels, targets) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """The targeted form (Croce and Hein 2020): towards one class, over a scale of four logits."""
    ordered = logits.sort(1, descending=True).values
    return (logit_of(logits, targets) - logit_of(logits, labels)) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def away(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """``E(x, y) = -z_y``: push the squared distance to the true mean up (what the MMC authors attack with)."""
    return -logit_of(logits, labels)


def towards(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """``z_t``: pull the features towards another mean."""
    return logit_of(logits, targets)


def logit_of(logits: Logits, labels: Labels) -> Tensor:
    """Return each image's logit of its label."""
    return logits.gather(1, labels[:, None]).squeeze(1)


def median_gap(logits: Logits) -> float:
    """Return the median gap between the two largest logits, the scale at which a cross-entropy has a gradient; 1 where it is 0."""
    top = logits.topk(2, dim=1).values
    return float((top[:, 0] - top[:, 1]).median()) or 1.0


LOSSES: Registry[AttackLoss] = Registry(
    "attack_losses",
    {
        "ce": AttackLoss(cross_entropy, about="cross-entropy of the unscaled logits; prone to masking"),
        "ce-scaled": AttackLoss(cross_entropy, about="cross-entropy of logits scaled to a median gap of 1"),
        "margin": AttackLoss(margin, about="difference of the largest wrong logit and the true one"),
        "dlr": AttackLoss(dlr, n_classes=3, about="difference of logits ratio"),
        "dlr-targeted": AttackLoss(targeted_dlr, targeted=True, n_classes=4, about="difference of logits ratio, towards each of 9 classes"),
        "mmc": AttackLoss(away, about="squared distance to the true mean"),
        "mmc-targeted": AttackLoss(towards, targeted=True, about="squared distance to each of 9 other means"),
    },
    AttackLoss,
)


def ranked_targets(logits: Logits, labels: Labels, rank: int) -> Labels:
    """Return each image's r-th most likely wrong class, r from 0."""
    return others(logits, labels).argsort(1, descending=True)[:, rank]
