"""Chains: how an image moves down an energy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch

from gmmcli.core import protocols
from gmmcli.registry import Registry
from gmmcli.types import Count, EnergyFn, Images, NonNegative, Positive, Scalar, Trace


def descent_share(trace: Trace) -> Scalar:
    """Return the share of updates that lowered their image's energy; NaN for chains of one step."""
    return (trace[1:] < trace[:-1]).float().mean()


@dataclass(frozen=True, kw_only=True)
class Descent(ABC):
    """What samplers share that differ in their step alone: ``x <- clamp(x - step(dE/dx) + noise_std n, -1, 1)``, ``n_steps`` times.

    The energies are summed over the batch, never averaged: a chain must not depend on its company. The clamp is the authors'.
    """

    n_steps: Count = 20
    """Updates of a chain in one training step."""
    noise_std: NonNegative = 0.0
    """Standard deviation of the Gaussian noise that every update adds, in the model range [-1, 1]; JEM: 0.01."""

    @abstractmethod
    def step(self, gradient: Images) -> Images:
        """Return what an update takes from its image."""

    def __call__(self, energy: EnergyFn, images: Images, generator: torch.Generator) -> tuple[Images, Trace]:
        """Run ``n_steps`` updates from ``images``, which stay untouched.

        Args:
            energy: images to energies, one per image; called once a step.
            images: the chains' starts.
            generator: of the noise.

        Returns:
            Where the chains arrived, and the energies before each update, shape (step, batch).
        """
        x, trace = images.detach(), []
        for _ in range(self.n_steps):
            x = x.detach().requires_grad_()
            energies = energy(x)
            (gradient,) = torch.autograd.grad(energies.sum(), x)
            trace.append(energies.detach())
            with torch.no_grad():
                x = x - self.step(gradient)
                if self.noise_std:
                    x = x + self.noise_std * torch.randn(x.shape, generator=generator, device=x.device)
                x = x.clamp(-1, 1)
        return x.detach(), torch.stack(trace)


@dataclass(frozen=True, kw_only=True)
class SGLD(Descent):
    """Stochastic gradient Langevin dynamics, ``x <- clamp(x - step_size dE/dx + noise_std n, -1, 1)``.

    Eq. 3 with the step and the noise untied, as in JEM's code; with ``noise_std = 0`` the updates of Eqs. 8 and 10.
    (The authors' code averages the energy over the batch, so the paper's step of 1.0 at batch 64 is 1/64 here.)
    """

    kind: Literal["sgld"] = "sgld"
    step_size: Positive = 1 / 64
    """Factor of the gradient. The authors' 1.0 is on the mean energy of 64 images: 1/64 of an image's own. JEM: 1.0."""
    clip: NonNegative = 0.0
    """Clamp every component of the gradient to [-clip, clip] first; 0: no. IGEBM clips at 0.01 (Du and Mordatch 2019), JEM++'s
    proximal SGLD at 1 (Yang and Ji 2021, Sec. 3.1)."""

    def step(self, gradient: Images) -> Images:
        """Return ``step_size`` times the gradient, clipped."""
        return self.step_size * (gradient.clamp(-self.clip, self.clip) if self.clip else gradient)


@dataclass(frozen=True, kw_only=True)
class FixedLength(Descent):
    """Steps of one L2 length down the gradient's direction, ``x <- clamp(x - step_size g / ||g||_2 + noise_std n, -1, 1)``.

    The form of DAT's chains (Yin et al. 2025). Gradients that vanish or explode do not change how far a chain gets, so there is no
    step size to tune while the energy's scale changes. An image whose gradient is exactly 0 stays where it is.
    """

    kind: Literal["fixed-length"] = "fixed-length"
    step_size: Positive = 0.5
    """L2 length of every step, over all pixels of an image, in the model range [-1, 1]."""

    def step(self, gradient: Images) -> Images:
        """Return the gradient scaled to the length ``step_size``."""
        tiny = torch.finfo(gradient.dtype).tiny
        # by the largest component first: squares below 1e-38 or above 1e38 would make the norm 0 or infinite
        gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=tiny)
        norm: torch.Tensor = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
        return self.step_size * gradient / norm.clamp(min=tiny)


SAMPLERS: Registry[type[protocols.Sampler]] = Registry("samplers", {"sgld": SGLD, "fixed-length": FixedLength})


def changed(sampler: protocols.Sampler, **fields: int | float) -> protocols.Sampler:
    """The sampler with other ``n_steps``, ``step_size`` or ``noise_std``."""
    table: Any = sampler  # a dataclass, which mypy cannot read in a protocol
    return cast(protocols.Sampler, replace(table, **fields))
