"""What a GPU computes, held to the CPU's values; ``make gpu``. With the variable DEVICE=cpu the same tests try themselves without one."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import run, trained, undrawn
from trainings import Small

from gmmcli.evaluate.subject import Subject
from gmmcli.run import Run
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step
from pretend import same_draws
from test_devices import MEASURED, TRAININGS, small, train

__all__ = ["run", "small", "trained", "undrawn"]

DEVICE = torch.device(os.environ.get("DEVICE", "cuda"))
ON_IT = f"compute.device={DEVICE.type}"
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}
ON_THE_CPU = "compute.device=cpu"
PLAIN_STEPS = ("optim.kind=sgd", "optim.learning_rate=1e-3")
"""Where values are compared: Adam's first updates are of the learning rate's size whatever the gradient's, which may be rounding alone."""
pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    if DEVICE.type == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch finds no GPU here")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield


@contextmanager
def no_waiting() -> Iterator[None]:
    """On a GPU, have torch raise where the host would wait for it."""
    if DEVICE.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings(action="ignore"):  # torch warns once that it does not see every wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", TRAININGS)
def test_training_steps_are_those_of_the_cpu(name: str, small: Small) -> None:
    recipe = small(*PLAIN_STEPS, *TRAININGS[name], "chains.dtype=float32", ON_THE_CPU)
    expected, _ = train(recipe)
    with same_draws(DEVICE):
        found, _ = train(recipe)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_makes_the_host_wait(name: str, precision: str, small: Small) -> None:
    setup = Setup.prepare(small(*TRAININGS[name], ON_IT, f"compute.precision={precision}"))
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device)
    state.step = setup.loader.steps_per_epoch - 2
    training_step(setup, state, update)  # the first step allocates, and lets cudnn choose
    with no_waiting():
        reports = [training_step(setup, state, update) for _ in range(2)]  # the last of an epoch and the first of the next
    update.raise_if_diverged(state.step)
    assert all(bool(report.loss.total.isfinite()) for report in reports)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_goes_on_as_the_undisturbed_one(precision: str, small: Small, tmp_path: Path) -> None:
    setup = Setup.prepare(small(ON_IT, f"compute.precision={precision}", *TRAININGS["sharpness-aware"]))
    saved_in = Run.create(setup.recipe, tmp_path, ["gmmc", "train"])
    state = setup.initial_state()

    def loss(of: Any) -> float:
        update = GuardedStep(of.optimizer, setup.recipe.guard.max_loss, setup.device)
        return float(training_step(setup, of, update).loss.total.detach())

    for _ in range(3):
        loss(state)
    state.save(saved_in, setup.dataset)
    resumed = setup.restored(saved_in.checkpoint())
    assert resumed.chains is not None and state.chains is not None
    assert torch.equal(resumed.chains.buffer.images.cpu(), state.chains.buffer.images.cpu())
    assert loss(resumed) == pytest.approx(loss(state), rel=1e-3 if precision == "fp32" else 2e-2)


def numbers(values: Any) -> list[float]:
    """All numbers of a nested value, in order."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return [number for value in values for number in numbers(value)]
    return [float(values)] if isinstance(values, (bool, int, float)) else []


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_is_what_the_cpu_measures(name: str, run: Run) -> None:
    expected = numbers(MEASURED[name](Subject.open(run.path, n=20)))
    with same_draws(DEVICE):
        found = numbers(MEASURED[name](Subject.open(run.path, n=20, device=DEVICE)))
    assert len(found) == len(expected) > 0
    differ = sum(one != pytest.approx(other, rel=1e-2, abs=1e-3, nan_ok=True) for one, other in zip(found, expected, strict=True))
    assert differ <= len(found) / 10  # an image at a boundary may fall on the other side
