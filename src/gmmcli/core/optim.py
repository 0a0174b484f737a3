"""The optimiser and its learning rate."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from gmmcli.types import Natural, Positive, Share


@dataclass(frozen=True, kw_only=True)
class Adam:
    """The ``[optim]`` table: Adam (Kingma and Ba 2015), a linear warm-up, then steps down or a cosine (Appendix B)."""

    kind: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-4
    warmup_steps: Natural = 0
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[Natural, ...] = ()
    """Epochs at which the learning rate is multiplied by ``decay``."""
    decay: Positive = 0.3
    final_share: Share = 0.01
    """Where the cosine ends, as a share of the learning rate."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Adam:
        """Build the optimiser: fused, one kernel over all parameters, which skips a step on the device when told so."""
        return torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)

    def rate(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        """Return the learning rate of a step, from 0 to ``n_steps - 1``."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "cosine":
            falling = (1 + math.cos(math.pi * step / n_steps)) / 2
            return self.learning_rate * warmup * (self.final_share + (1 - self.final_share) * falling)
        return self.learning_rate * warmup * self.decay ** bisect_right(sorted(self.milestones), step // steps_per_epoch)
