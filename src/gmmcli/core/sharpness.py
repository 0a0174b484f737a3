"""Sharpness-aware minimisation: the gradient is taken where the loss near the weights is highest."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

TINY = 1e-12  # a gradient of zero has no direction, and must not become NaN


@contextmanager
def ascended(model: nn.Module, rho: float, adaptive: bool = False) -> Iterator[None]:
    """Weights as far uphill as ``rho`` allows, along the gradients that they hold on entry; back, bit-identical, on leaving.

    Plain: ``w + rho g / ||g||`` (Foret et al. 2021, Eq. 2). Adaptive: ``w + rho T^2 g / ||T g||`` with ``T = |w|`` (Kwon et al. 2021,
    Sec. 4), without their small constant in T, as SADA-JEM has it. The norm is over all weights together.

    Buffers go back too: statistics of a batch norm are those of the weights, not of a point uphill (SADA-JEM).
    """
    with torch.no_grad():
        moving = [(p, p.grad) for p in model.parameters() if p.grad is not None]
        slopes = [p.abs() * gradient if adaptive else gradient for p, gradient in moving]
        length = rho / (torch.nn.utils.get_total_norm(slopes) + TINY)
        kept = [(tensor, tensor.clone()) for tensor in (*(p for p, _ in moving), *model.buffers())]
        for (parameter, _), slope in zip(moving, slopes, strict=True):
            parameter.add_((parameter.abs() * slope if adaptive else slope) * length)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)
