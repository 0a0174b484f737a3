"""A step is taken when loss and gradient are sane, and never after one that was not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gmmcli.core.optim import SGD, Adam
from gmmcli.core.protocols import Optim
from gmmcli.core.sharpness import ascended
from gmmcli.errors import DivergedError
from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.types import Loss

START = [0.0, 2.0, -3.0]


def guarded(max_loss: float = 100.0, optim: Optim = Adam()) -> tuple[torch.nn.Parameter, GuardedStep]:  # noqa: B008 - frozen
    weights = torch.nn.Parameter(torch.tensor(START))
    return weights, GuardedStep(optim.build([weights]), max_loss, torch.device("cpu"))


def sane(weights: Tensor) -> Tensor:
    return (weights - 1).square().sum()


def taken(update: GuardedStep, loss: Tensor, rate: float = 0.1) -> Loss:
    return update(lambda: Loss(loss, {}), rate)


def state_of(weights: Tensor, update: GuardedStep) -> list[Tensor]:
    return [weights.detach().clone(), *(value.clone() for value in update.optimizer.state[weights].values())]


def test_healthy_steps_are_adam_by_hand() -> None:
    weights, update = guarded()
    x = torch.tensor(START, dtype=torch.float64)
    first, second = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t, rate in enumerate([0.1, 0.05, 0.2], start=1):
        taken(update, sane(weights), rate)
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


OPTIMS = {
    "adamw": Adam(weight_decay=0.1),
    "sgd": SGD(weight_decay=0.1),
    "nesterov": SGD(nesterov=True),
    "sgd without momentum": SGD(momentum=0.0, weight_decay=0.1),
}


@pytest.mark.parametrize("optim", OPTIMS.values(), ids=OPTIMS)
@pytest.mark.parametrize("loss", UNHEALTHY.values(), ids=UNHEALTHY)
def test_an_unhealthy_step_leaves_weights_and_moments_untouched_forever(loss: Callable[[Tensor], Tensor], optim: Optim) -> None:
    weights, update = guarded(optim=optim)
    taken(update, sane(weights))
    good = state_of(weights, update)
    taken(update, loss(weights))
    assert not update.healthy
    assert all(map(torch.equal, state_of(weights, update), good))
    for _ in range(2):
        taken(update, sane(weights))
        assert all(map(torch.equal, state_of(weights, update), good))
    with pytest.raises(DivergedError, match="diverged at step 17") as caught:
        update.raise_if_diverged(17)
    assert "learning rate" in caught.value.hint


def test_a_loss_of_exactly_the_bound_is_healthy() -> None:
    weights, update = guarded(max_loss=float(sane(torch.tensor(START))))
    taken(update, sane(weights))
    assert bool(update.healthy)
    assert weights.tolist() != START


def test_the_guard_of_table_10_waits_for_its_energies() -> None:
    """The paper's last line has sampled energies of 5.15e9."""
    weights, update = guarded(max_loss=Recipe.load("cifar10_jem_joint").guard.max_loss)
    taken(update, 5.15e9 + sane(weights))
    assert bool(update.healthy)
    taken(update, sane(weights) * float("inf"))
    assert not update.healthy


def test_the_gradient_of_an_earlier_step_is_forgotten() -> None:
    weights, update = guarded()
    for _ in range(2):
        taken(update, (weights * torch.tensor([3.0, 4.0, 0.0])).sum())
    assert float(update.grad_norm) == pytest.approx(5.0)


def test_a_parameter_without_gradient_stays_where_it_is() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    update = GuardedStep(Adam().build([used, unused]), 100.0, torch.device("cpu"))
    taken(update, used.sum())
    assert unused.tolist() == [1, 1]
    assert used.tolist() == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize("optim", OPTIMS.values(), ids=OPTIMS)
def test_an_unhealthy_first_step_leaves_weights_where_they_were_and_moments_at_nothing(optim: Optim) -> None:
    weights, update = guarded(optim=optim)
    taken(update, sane(weights) * float("nan"))
    assert weights.tolist() == START
    assert all(bool((value == 0).all()) for value in update.optimizer.state[weights].values())


class Holder(torch.nn.Module):
    """A model of nothing but its weights, which counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(START))
        self.asked: list[list[float]] = []

    def loss(self) -> Loss:
        self.asked.append(self.weights.tolist())
        return Loss(sane(self.weights), {"asked": torch.tensor(float(len(self.asked)))})


def test_the_gradient_is_taken_uphill_and_applied_where_the_weights_were() -> None:
    model = Holder()
    update = GuardedStep(SGD(momentum=0.0).build(model.parameters()), 100.0, torch.device("cpu"))
    loss = update(model.loss, 0.25, ascended(model, 0.5))
    start = torch.tensor(START)
    uphill = start + 0.5 * (start - 1) / (start - 1).norm()
    assert model.asked == [START, pytest.approx(uphill.tolist())]
    torch.testing.assert_close(model.weights.detach(), start - 0.25 * 2 * (uphill - 1))
    assert float(loss.total.detach()) == float(update.loss) == float(sane(start))  # what is logged is the loss of the weights themselves
    assert float(loss.parts["asked"]) == 1
    assert float(update.grad_norm) == pytest.approx(float((2 * (uphill - 1)).norm()))


@pytest.mark.parametrize("harm", [float("nan"), float("inf")])
@pytest.mark.parametrize("when", [1, 2])
def test_an_unhealthy_gradient_on_either_pass_moves_nothing(harm: float, when: int) -> None:
    model = Holder()
    update = GuardedStep(SGD().build(model.parameters()), 100.0, torch.device("cpu"))

    def loss() -> Loss:
        sound = model.loss().total
        return Loss(sound * harm if len(model.asked) == when else sound, {})

    update(loss, 0.1, ascended(model, 0.5))
    assert not update.healthy
    assert model.weights.tolist() == START
    assert update.optimizer.state[model.weights]["momentum_buffer"].tolist() == [0, 0, 0]
