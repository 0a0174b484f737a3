"""Several processes train one model: that of one process, where nothing is drawn at random."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from trainings import Begin

from gmmcli.core.starts import GaussianStarts
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import training_step
from ranks import on_ranks

UNDRAWN = (
    "data.noise_std=0.0",
    "chains.start.kind=class-gaussian",
    "chains.start.rank=3",
    "chains.reinit_prob=1.0",
    "chains.target.kind=conditional",
    "chains.sampler.noise_std=0.0",
)
"""A training in which only the starts of chains are random."""
KINDS = {
    "discriminative": ("stages.0.objective.kind=center-regression",),
    "generative with a margin": ("stages.0.objective.margin=1.02", "stages.0.objective.beta=1.0", "optim.learning_rate=0.01"),
    "sharpness-aware": ("stages.0.objective.kind=center-regression", "optim.kind=sgd", "optim.learning_rate=1e-3", "optim.sam_rho=0.05"),
    "jem, clean and augmented images": (
        "stages.0.objective={kind='jem',clean_positive=true,separate_norm=true}",
        "chains.target.kind=marginal",
    ),
}


def stepped(setup: Setup, n_steps: int, *, undrawn: bool = False) -> tuple[TrainState, list[Any]]:
    """The state after some steps, and the losses that the guard saw; undrawn, chains start from the mean of their class."""
    state = setup.initial_state()
    if undrawn and state.chains is not None and isinstance(starts := state.chains.starts, GaussianStarts):
        state.chains = replace(state.chains, starts=replace(starts, components=torch.zeros_like(starts.components)))
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    losses = []
    for _ in range(n_steps):
        report = training_step(setup, state, update)
        losses.append([float(update.loss), float(update.grad_norm), *(float(part) for part in report.loss.parts.values())])
    return state, losses


def curve(setup: Setup) -> list[Any]:
    return stepped(setup, 8, undrawn=True)[1]


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_two_processes_have_the_losses_of_one_with_the_batch_of_both(begin: Begin, overrides: tuple[str, ...]) -> None:
    setup, _ = begin(*UNDRAWN, *overrides, "stages.0.epochs=2")
    alone, together = torch.tensor(curve(setup)), torch.tensor(on_ranks(2, curve, setup))
    assert torch.equal(together[0, :, :2], together[1, :, :2])  # loss and gradient norm, which all have
    assert not torch.allclose(together[0, :, 2:], together[1, :, 2:], rtol=1e-2)  # the parts, which each has of its own images
    torch.testing.assert_close(together.mean(0), alone, rtol=1e-3, atol=1e-4)
