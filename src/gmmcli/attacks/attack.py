"""An attack within a ball: its settings, and what it left of a set of images."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

Norm = Literal["linf", "l2"]
DEFAULT_EPS = {"linf": [8 / 255], "l2": [0.5]}


@dataclass(frozen=True)
class Attack:
    """One attack and its settings."""

    kind: str = "pgd"
    """Its name in ``algorithms.ATTACKS``."""
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


class Outcome(NamedTuple):
    """What an attack left of a set of images, in their order."""

    unbroken: Tensor
    """Images that are still classified correctly, shape (batch,)."""
    adversarial: Tensor
    """Where broken, the misclassified image in [0, 1]; else the clean one."""
    forwards: int
    gradients: int
    zero_gradients: int
