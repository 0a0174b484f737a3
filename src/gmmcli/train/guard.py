"""The guard: an optimiser step that is skipped where the loss or the gradient is out of bounds."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from gmmcli.distributed import average, mean, minimum
from gmmcli.errors import DivergedError
from gmmcli.types import Loss


class GuardedStep:
    """Backward, check, update. After a first unhealthy step the weights are never updated again, in any process.

    The check runs on the device, and the fused optimiser skips the update there (``found_inf``, as with a gradient scaler), so that
    a step never waits for the host. The host calls ``raise_if_diverged`` where it synchronises anyway.
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
            loss_of: computes the loss at the current weights; called twice, on the same images, with ``uphill``. Of several
                processes each has the loss of its own images; the update is that of the mean over all.
            learning_rate: of this step.
            uphill: a context that moves the weights to where the update's gradient is taken, such as ``core.sharpness.ascended``.

        Returns:
            The loss at the weights before the step, with ``uphill`` too; of this process's images.
        """
        loss = loss_of()
        self._backward(loss.total)
        self.loss = mean(loss.total.detach())
        healthy = self.healthy & self.grad_norm.isfinite() & (self.loss.abs() <= self.max_loss)
        if uphill is not None:
            with uphill:
                self._backward(loss_of().total)
            healthy = healthy & self.grad_norm.isfinite()
        self.healthy = minimum(healthy)
        self.optimizer.found_inf = (~self.healthy).float()  # type: ignore[attr-defined]  # read by torch's fused kernels, not declared
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss

    def _backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        average(gradients)
        self.grad_norm = torch.nn.utils.get_total_norm(gradients)

    def raise_if_diverged(self, step: int) -> None:
        """Raise DivergedError where a step so far was unhealthy; waits for the device."""
        if not self.healthy:
            raise DivergedError(
                f"training diverged at step {step}: loss {float(self.loss):.4g}, gradient norm {float(self.grad_norm):.4g}",
                'earlier checkpoints are kept; set guard.on_divergence = "rollback", a margin, or a lower learning rate',
            )
