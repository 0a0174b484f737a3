"""An attack within a ball: its settings, and what it left of a set of images."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from gmmcli.attacks.losses import LOSSES
from gmmcli.errors import RecipeError

Norm = Literal["linf", "l2"]
Kind = Literal["fgsm", "pgd", "apgd", "square"]
DEFAULT_EPS = {"linf": [8 / 255], "l2": [0.5]}


@dataclass(frozen=True)
class Attack:
    """One attack and its settings."""

    kind: Kind = "pgd"
    loss: str = "ce"
    norm: Norm = "linf"
    steps: int = 40
    """Gradient steps; for square the queries."""
    step_size: float | None = None
    """As a share of eps; 2.5 / steps by default (Madry et al. 2018)."""
    restarts: int = 1
    seed: int = 1
    throughout: bool = False
    """Attack broken images further: what transfers best, and what leaving them out is measured against."""

    @property
    def name(self) -> str:
        """What it is called in results."""
        return self.kind if self.kind == "square" else f"{self.kind}-{self.loss}"

    def check(self, n_classes: int) -> None:
        """Raise RecipeError for a loss that does not exist, or not with so few classes, or an attack that has not this norm."""
        if self.loss not in LOSSES:
            raise RecipeError(f"no attack loss {self.loss!r}", f"give one of {', '.join(LOSSES)}")
        needed = LOSSES[self.loss].n_classes
        if n_classes < needed:
            raise RecipeError(f"loss {self.loss} compares {needed} logits, and this run has {n_classes} classes", "take margin")
        if self.kind == "fgsm" and self.norm == "l2":
            raise RecipeError("fgsm is a step in the linf norm", "take pgd with --steps 1 for l2")


PLAIN = {
    "fgsm": Attack("fgsm", steps=1),
    "pgd": Attack("pgd"),
    "apgd": Attack("apgd", "dlr", steps=100),
    "square": Attack("square", "margin", steps=5000),
}
"""What each command does by itself."""


class Outcome(NamedTuple):
    """What an attack left of a set of images, in their order."""

    standing: Tensor
    """Images that are still classified rightly, shape (batch,)."""
    adversarial: Tensor
    """Where broken, the misclassified image in [0, 1]; else the clean one."""
    forwards: int
    gradients: int
    zero_gradients: int
