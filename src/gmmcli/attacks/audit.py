"""The audit: many attacks, the worst case of each image, and named reasons to distrust a figure (Carlini et al. 2019)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmmcli.attacks.attack import Attack
from gmmcli.attacks.losses import LOSSES, cross_entropy
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.metrics.accuracy import proportion
from gmmcli.types import Labels

FOCUS = 8 / 255
PAPER = "pgd-ce"
IGNORING, STRAIGHT_THROUGH = "ignoring the refinement", "pgd-margin straight through"
"""Of a refined classifier: what an attack on the plain one did, and one whose gradients take the chain for the identity."""
BLACK_BOX = ("square", "transfer", IGNORING)
EPS = (1 / 255, 2 / 255, 4 / 255, FOCUS, 16 / 255, 32 / 255, 64 / 255, 1.0)
EIGHTFOLD = (4 / 255, 32 / 255)  # the ends of the paper's table, if its radii are those of JEM
SUITE = (
    Attack("pgd", "ce"),
    Attack("pgd", "ce-scaled"),
    Attack("pgd", "margin"),
    Attack("pgd", "dlr"),
    Attack("pgd", "dlr-targeted", steps=20),
    Attack("pgd", "mmc"),
    Attack("pgd", "mmc-targeted", steps=20),
    Attack("apgd", "dlr", steps=100),
    Attack("apgd", "dlr-targeted", steps=100),
    Attack("apgd", "margin", steps=100),
    Attack("square", "margin", steps=1000),
)
TWICE = replace(Attack("pgd", "margin"), steps=80)
SWEEP = tuple(Attack("pgd", "margin", step_size=size, seed=2) for size in (0.1, 0.25, 0.5))
RESTARTS = Attack("pgd", "margin", restarts=5, seed=3)
AT_FOCUS = {"pgd-margin x2 steps": TWICE, "pgd-margin x5 restarts": RESTARTS} | {
    f"pgd-margin step {attack.step_size:g}": attack for attack in SWEEP
}


class Finding(NamedTuple):
    """A named check, whether it found something, and what, in plain words."""

    name: str
    fired: bool
    why: str


@dataclass(frozen=True)
class Curves:
    """Accuracy of every attack over growing radii, from the radius at which each image fell to it."""

    fell: Mapping[str, Tensor]
    eps: Sequence[float]

    def accuracy(self, name: str, eps: float) -> float:
        """Share of all images that are still classified correctly at this radius."""
        return float((self.fell[name] > eps).double().mean())

    def worst(self, names: Sequence[str] | None = None) -> Tensor:
        """The smallest radius at which each image fell to any of these attacks, or to any at all."""
        return torch.stack([self.fell[name] for name in names or list(self.fell)]).amin(0)


def suite(n_classes: int) -> dict[str, Attack]:
    """The attacks that make sense for so many classes."""
    return {attack.name: attack for attack in SUITE if LOSSES[attack.loss].n_classes <= n_classes}


def zero_gradients(model: PixelModel, pixels: Tensor, labels: Labels) -> Tensor:
    """Return for each image whether the gradient of its cross-entropy is exactly zero in every pixel."""
    found = [torch.zeros(0, dtype=torch.bool, device=labels.device)]
    size = model.at_a_time(pixels)
    for x, y in zip(torch.split(pixels, size), torch.split(labels, size), strict=True):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(x), y, y).sum(), x)
        found.append((gradient.flatten(1) == 0).all(1))
    return torch.cat(found)


def findings(curves: Curves, zero_share: float, n_classes: int, focus: float) -> list[Finding]:
    """Return the checks of Carlini et al. (2019) as findings; each says what it saw, fired or not."""
    checks = [_flat(curves, n_classes), _black_box(curves), _unbounded(curves, n_classes), _more_steps(curves, focus), _margin(curves)]
    zero = f"{zero_share:.1%} of the clean images have an all-zero cross-entropy gradient"
    return [Finding("zero gradients", zero_share > 0.01, zero), *(check for check in checks if check)]


def _flat(curves: Curves, n_classes: int) -> Finding | None:
    a, b = EIGHTFOLD
    if not {a, b} <= set(curves.eps):
        return None
    before, after = curves.accuracy(PAPER, a), curves.accuracy(PAPER, b)
    why = f"{PAPER} leaves {before:.1%} at {format_eps(a)} and {after:.1%} at {format_eps(b)}"
    return Finding("flat curve", before - after < 0.05 and after > 2 / n_classes, why)


def _black_box(curves: Curves) -> Finding:
    black = [name for name in BLACK_BOX if name in curves.fell]
    white, everyone = curves.worst([name for name in curves.fell if name not in BLACK_BOX]), curves.worst()
    alone = {eps: float(((white > eps) & (everyone <= eps)).double().mean()) for eps in curves.eps}
    worst_eps = max(alone, key=lambda eps: alone[eps])
    why = f"at most {alone[worst_eps]:.1%} of the images fall to {' or '.join(black) or 'a black box'} alone, at {format_eps(worst_eps)}"
    return Finding("black box beats white box", alone[worst_eps] > 0.002, why)


def _unbounded(curves: Curves, n_classes: int) -> Finding | None:
    if 1.0 not in curves.eps:
        return None
    left = {name: curves.accuracy(name, 1.0) for name in suite(n_classes) if name in curves.fell and name not in BLACK_BOX}
    standing = [f"{name} leaves {accuracy:.1%}" for name, accuracy in left.items() if accuracy]
    why = ", ".join(standing) or "every gradient attack reaches 0"
    return Finding("unbounded attack does not reach 0", bool(standing), f"at eps = 1 {why}")


def _more_steps(curves: Curves, focus: float) -> Finding:
    once, twice = curves.accuracy("pgd-margin", focus), curves.accuracy("pgd-margin x2 steps", focus)
    why = f"pgd-margin at {format_eps(focus)} leaves {once:.1%} after 40 steps and {twice:.1%} after 80"
    return Finding("more steps help", once - twice > 0.005, why)


def _margin(curves: Curves) -> Finding:
    gaps = {eps: curves.accuracy(PAPER, eps) - curves.accuracy("pgd-margin", eps) for eps in curves.eps}
    worst_eps = max(gaps, key=lambda eps: gaps[eps])
    why = f"by {100 * gaps[worst_eps]:.1f} points at {format_eps(worst_eps)}, where they differ most"
    return Finding("margin beats CE by more than 5 points", gaps[worst_eps] > 0.05, why)


def audit_values(curves: Curves, zero: Tensor, clean: Tensor, n_classes: int, focus: float) -> dict[str, Any]:
    """Return the values of an ``attack audit`` result: curves, worst case, verdicts and the one sentence to quote.

    Args:
        curves: all attacks on all images.
        zero: what ``zero_gradients`` says of the images that are classified correctly.
        clean: whether each image is.
        n_classes: of the model.
        focus: the radius that the sentence is about.
    """
    zero_share = float(zero.double().mean()) if len(zero) else 0.0
    worst = curves.worst()
    believed = proportion(worst > focus)
    overstated = 100 * (curves.accuracy(PAPER, focus) - believed["accuracy"])
    low, high = believed["ci95"]
    return {
        "clean_accuracy": proportion(clean)["accuracy"],
        "clean_ci95": proportion(clean)["ci95"],
        "zero_gradient_share": zero_share,
        "zero_gradient_share_ci95": proportion(zero)["ci95"],
        "worst_case": {format_eps(eps): {key: proportion(worst > eps)[key] for key in ("accuracy", "ci95")} for eps in curves.eps},
        "attacks": {
            name: {format_eps(eps): {"accuracy": curves.accuracy(name, eps)} for eps in ([focus] if name in AT_FOCUS else curves.eps)}
            for name in curves.fell
        },
        "verdicts": [finding._asdict() for finding in findings(curves, zero_share, n_classes, focus)],
        "sentence": (
            f"Believed robust accuracy at {format_eps(focus)} (linf, worst case of {len(curves.fell)} attacks, n = {len(worst)}): "
            f"{believed['accuracy']:.1%} ({low:.1%} to {high:.1%}); PGD with cross-entropy overstated it by {overstated:.1f} points."
        ),
    }


def format_eps(eps: float) -> str:
    """Return a radius as people write it: 8/255, 1, or a decimal number."""
    whole = round(eps * 255)
    if whole and abs(eps * 255 - whole) < 1e-6 and eps < 1:
        return f"{whole}/255"
    return f"{eps:g}"
