"""The optimisers: how weights move, at which learning rate, and what is done around each update."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from gmmcli.core import protocols
from gmmcli.registry import Registry
from gmmcli.types import Natural, NonNegative, Positive, Share, ShareBelowOne


@dataclass(frozen=True, kw_only=True)
class Updates:
    """What the ``[optim]`` tables of every kind have: a linear warm-up, then steps down or a cosine (Appendix B); SAM; an average."""

    kind: str
    learning_rate: Positive = 1e-4
    """Before warm-up and schedule."""
    warmup_steps: Natural = 0
    """Steps in which the learning rate rises linearly to its value; step i, from 0, has (i + 1) / warmup_steps of it."""
    schedule: Literal["milestones", "cosine"] = "milestones"
    """milestones: steps down. cosine: half a period, from the learning rate to ``final_share`` of it."""
    milestones: tuple[Natural, ...] = ()
    """Epochs at which the learning rate is multiplied by ``decay``; a stage with its own optimiser counts from its own start."""
    decay: Positive = 0.3
    """Factor at every milestone."""
    final_share: Share = 0.01
    """Where the cosine ends, as a share of the learning rate."""
    sam_rho: NonNegative = 0.0
    """Radius within which sharpness-aware minimisation looks for the highest loss (Foret et al. 2021), in two passes a step; 0: off."""
    sam_adaptive: bool = False
    """Measure the radius relative to each weight (ASAM, Kwon et al. 2021, Sec. 4), as SADA-JEM does (Yang et al. 2023)."""
    ema_decay: ShareBelowOne = 0.0
    """Share that the average of weights keeps in an update (``core/average.py``); it is what is evaluated and published. 0: none."""

    def rate(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        """Return the learning rate of a step, from 0 to ``n_steps - 1``."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "cosine":
            falling = (1 + math.cos(math.pi * step / n_steps)) / 2
            return self.learning_rate * warmup * (self.final_share + (1 - self.final_share) * falling)
        try:
            return self.learning_rate * warmup * self.decay ** bisect_right(sorted(self.milestones), step // steps_per_epoch)
        except OverflowError:  # by a decay above 1, which the guard then meets as a divergence
            return math.inf


@dataclass(frozen=True, kw_only=True)
class Adam(Updates):
    """Adam (Kingma and Ba 2015); with weight decay AdamW (Loshchilov and Hutter 2019)."""

    kind: Literal["adam"] = "adam"
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """What the averages of the gradient and of its square keep of themselves in a step."""
    weight_decay: NonNegative = 0.0
    """Decoupled: every step takes ``learning_rate * weight_decay`` of each weight, outside the moments."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimiser: fused, one kernel over all parameters, which skips a step on the device when told so."""
        return torch.optim.Adam(
            parameters, self.learning_rate, self.betas, weight_decay=self.weight_decay, decoupled_weight_decay=True, fused=True
        )


@dataclass(frozen=True, kw_only=True)
class SGD(Updates):
    """Stochastic gradient descent with momentum, as Wide-ResNets and the SADA-JEM family are trained."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: ShareBelowOne = 0.9
    """What the running sum of gradients keeps of itself in a step."""
    nesterov: bool = False
    """Look ahead along the momentum (Sutskever et al. 2013)."""
    weight_decay: NonNegative = 0.0
    """Added to the gradient as ``weight_decay * w``: an L2 penalty."""

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum; set momentum, 0.9 say")

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimiser, fused like Adam."""
        parameters = list(parameters)
        optimizer = torch.optim.SGD(
            parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov, fused=True
        )
        for parameter in parameters if self.momentum else ():  # torch leaves memory as it found it when the first step is skipped
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer


OPTIMISERS: Registry[type[protocols.Optim]] = Registry("optimisers", {"adam": Adam, "sgd": SGD})
