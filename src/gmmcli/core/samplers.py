"""Chains: how an image moves down an energy."""

from dataclasses import dataclass
from typing import Literal

import torch

from gmmcli.types import Count, EnergyFn, Images, NonNegative, Positive, Scalar, ShareBelowOne, Trace

SPEED_UP, SLOW_DOWN = 1.02, 0.96


def descent_share(trace: Trace) -> Scalar:
    """Return the share of updates that lowered their image's energy; NaN for chains of one step."""
    return (trace[1:] < trace[:-1]).float().mean()


@dataclass(frozen=True, kw_only=True)
class SGLD:
    """Stochastic gradient Langevin dynamics, ``x <- clamp(x - step_size dE/dx + noise_std n, -1, 1)``.

    Eq. 3 with the step and the noise untied, as in JEM's code; with ``noise_std = 0`` the updates of Eqs. 8 and 10.
    The energies are summed over the batch, never averaged: a chain must not depend on its company. (The authors'
    code averages, so the paper's step of 1.0 at batch 64 is 1/64 here.) The clamp is the authors' too.
    """

    kind: Literal["sgld"] = "sgld"
    n_steps: Count = 20
    step_size: Positive = 1 / 64
    noise_std: NonNegative = 0.0
    adapt: ShareBelowOne = 0.0
    """Share of descending steps to tune the step size towards, once a training step, above 0.5; 0 keeps it fixed."""

    def __post_init__(self) -> None:
        if 0 < self.adapt <= 0.5:  # steps of any length descend half the time, so the step size would grow without end
            raise ValueError(f"adapt = {self.adapt} is met by random steps of any length; set it above 0.5, or to 0 for a fixed step size")

    def __call__(
        self, energy: EnergyFn, images: Images, generator: torch.Generator, step_size: Scalar | None = None
    ) -> tuple[Images, Trace]:
        """Run ``n_steps`` updates from ``images``, which stay untouched.

        Args:
            energy: images to energies, one per image; called once a step.
            images: the chains' starts.
            generator: of the noise.
            step_size: an adapted step size instead of the recipe's.

        Returns:
            Where the chains arrived, and the energies before each update, shape (step, batch).
        """
        step = self.step_size if step_size is None else step_size
        x, trace = images.detach(), []
        for _ in range(self.n_steps):
            x = x.detach().requires_grad_()
            energies = energy(x)
            (gradient,) = torch.autograd.grad(energies.sum(), x)
            trace.append(energies.detach())
            with torch.no_grad():
                x = x - step * gradient
                if self.noise_std:
                    x = x + self.noise_std * torch.randn(x.shape, generator=generator, device=x.device)
                x = x.clamp(-1, 1)
        return x.detach(), torch.stack(trace)

    def adapted(self, step_size: Scalar, trace: Trace) -> Scalar:
        """Return the next step size: a little longer while more than ``adapt`` of the steps descend, else shorter."""
        if not self.adapt or self.n_steps == 1:
            return step_size
        return step_size * torch.where(descent_share(trace) > self.adapt, SPEED_UP, SLOW_DOWN)


Sampler = SGLD
