"""The guard: one optimiser step, taken only when loss and gradient are sane."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from gmmcli.errors import DivergedError
from gmmcli.types import Loss


class GuardedStep:
    """Backward, check, update. Once a step has been unhealthy, weights do not move again: what was good stays good.

    The check runs on the device and the fused optimiser obeys it there (``found_inf``, as for a gradient scaler), so that a
    step never waits for the host; the host asks with ``raise_if_diverged`` when it stops by anyway.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_loss: float, device: torch.device) -> None:
        self.optimizer = optimizer
        self.max_loss = max_loss
        self.healthy = torch.ones((), dtype=torch.bool, device=device)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.loss = torch.zeros((), device=device)
        self.grad_norm = torch.zeros((), device=device)

    def __call__(self, loss_of: Callable[[], Loss], learning_rate: float, uphill: AbstractContextManager[None] | None = None) -> Loss:
        """Take one step.

        Args:
            loss_of: gives the loss of the weights as they stand; asked twice, about the same images, where there is an ``uphill``.
            learning_rate: of this step.
            uphill: a context in which the weights lie where the update's gradient is to be taken, ``core.sharpness.ascended`` say.

        Returns:
            The loss of the weights before the step, ``uphill`` or not.
        """
        loss = loss_of()
        self._backward(loss.total)
        self.loss = loss.total.detach()
        self.healthy = self.healthy & self.grad_norm.isfinite() & (self.loss.abs() <= self.max_loss)
        if uphill is not None:
            with uphill:
                self._backward(loss_of().total)
            self.healthy = self.healthy & self.grad_norm.isfinite()
        self.optimizer.found_inf = (~self.healthy).float()  # type: ignore[attr-defined]  # read by torch's fused kernels, not declared
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss

    def _backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.grad_norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def raise_if_diverged(self, step: int) -> None:
        """Raise DivergedError when a step up to this one was unhealthy; waits for the device."""
        if not self.healthy:
            raise DivergedError(
                f"training diverged at step {step}: loss {float(self.loss):.4g}, gradient norm {float(self.grad_norm):.4g}",
                'what was saved before is kept; set guard.on_divergence = "rollback", a margin, or a lower learning rate',
            )
