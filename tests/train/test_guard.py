"""A step is taken when loss and gradient are sane, and never after one that was not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gmmcli.core.optim import Adam
from gmmcli.errors import DivergedError
from gmmcli.train.guard import GuardedStep

START = [0.0, 2.0, -3.0]


def guarded(max_loss: float = 100.0) -> tuple[torch.nn.Parameter, GuardedStep]:
    weights = torch.nn.Parameter(torch.tensor(START))
    return weights, GuardedStep(Adam().build([weights]), max_loss, torch.device("cpu"))


def sane(weights: Tensor) -> Tensor:
    return (weights - 1).square().sum()


def state_of(weights: Tensor, update: GuardedStep) -> list[Tensor]:
    return [weights.detach().clone(), *(value.clone() for value in update.optimizer.state[weights].values())]


def test_healthy_steps_are_adam_by_hand() -> None:
    weights, update = guarded()
    x = torch.tensor(START, dtype=torch.float64)
    first, second = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t, rate in enumerate([0.1, 0.05, 0.2], start=1):
        update(lambda: sane(weights), rate)
        gradient = 2 * (x - 1)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        x = x - rate * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weights.detach().double(), x, rtol=1e-5, atol=1e-6)
    assert bool(update.healthy)
    update.raise_if_diverged(3)


UNHEALTHY: dict[str, Callable[[Tensor], Tensor]] = {
    "the loss is NaN": lambda w: sane(w) * float("nan"),
    "the loss is infinite": lambda w: sane(w) + float("inf"),
    "the gradient is infinite, the loss is not": lambda w: (w - w.detach()).sqrt().sum(),
    "one gradient is NaN, the loss is not": lambda w: torch.where(
        torch.tensor([True, False, False]), (w - w.detach()).square().sqrt(), w
    ).sum(),
    "the loss is too large": lambda w: sane(w) + 1000,
    "the loss is too negative": lambda w: sane(w) - 1000,
}


@pytest.mark.parametrize("loss", UNHEALTHY.values(), ids=UNHEALTHY)
def test_an_unhealthy_step_leaves_weights_and_moments_untouched_forever(loss: Callable[[Tensor], Tensor]) -> None:
    weights, update = guarded()
    update(lambda: sane(weights), 0.1)
    good = state_of(weights, update)
    update(lambda: loss(weights), 0.1)
    assert not update.healthy
    assert all(map(torch.equal, state_of(weights, update), good))
    for _ in range(2):
        update(lambda: sane(weights), 0.1)
        assert all(map(torch.equal, state_of(weights, update), good))
    with pytest.raises(DivergedError, match="diverged at step 17") as caught:
        update.raise_if_diverged(17)
    assert "learning rate" in caught.value.hint


def test_a_loss_of_exactly_the_bound_is_healthy() -> None:
    weights, update = guarded(max_loss=float(sane(torch.tensor(START))))
    update(lambda: sane(weights), 0.1)
    assert bool(update.healthy)
    assert weights.tolist() != START


def test_the_gradient_of_an_earlier_step_is_forgotten() -> None:
    weights, update = guarded()
    for _ in range(2):
        update(lambda: Loss((weights * torch.tensor([3.0, 4.0, 0.0])).sum(), {}), 0.1)
    assert float(update.grad_norm) == pytest.approx(5.0)


def test_a_parameter_without_gradient_stays_where_it_is() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    update = GuardedStep(Adam().build([used, unused]), 100.0, torch.device("cpu"))
    update(lambda: Loss(used.sum(), {}), 0.1)
    assert unused.tolist() == [1, 1]
    assert used.tolist() == pytest.approx([0.9, 0.9])
