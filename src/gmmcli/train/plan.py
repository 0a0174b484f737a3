"""``--dry-run``: memory, disk and time of a training, measured on this machine."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gmmcli.core.cost import DAY
from gmmcli.data.downloaded import blank
from gmmcli.data.remote import published
from gmmcli.errors import RecipeError
from gmmcli.layout import Table, lines
from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.train.needs import Needs
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import training_step
from gmmcli.types import Loss

MEASURED_STEPS = 3
PATIENCE, LIMIT = 5, 30
"""Seconds that a step takes at least: beyond the first one step alone is measured, beyond the second none."""
DEVICES = (2, 4, 8)
"""Numbers of devices that the time of one is divided by."""


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes, times in seconds."""

    recipe: Recipe
    device: str
    n_steps: int
    parameters: int
    model_bytes: int
    optimizer_bytes: int
    """Of the largest optimiser, where stages have their own."""
    average_bytes: int
    """Of the average of weights, where any stage has one."""
    buffer_bytes: int
    starts_bytes: int
    """Of what chains start from."""
    images_bytes: int
    """Of the training images that are kept on the device; 0 where they stay in a file."""
    peak_bytes: int
    """The most memory that the process has taken so far, activations included: of the GPU, or of the machine where training is on a CPU.

    Where a step was not measured, at least what it takes (``Needs.memory``).
    """
    checkpoints: int
    """The most that there are at a time: the newest, the best, and one that is being written."""
    checkpoint_bytes: int
    step_seconds: tuple[float, ...]
    """One per stage."""
    measured: tuple[bool, ...]
    """Of each stage whether its step was measured, or is the least that it can take at the speed of the device's matrix products."""
    total_seconds: float
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        values = {name: value for name, value in vars(self).items() if name != "recipe"}
        values["total_seconds_on"] = {str(n): self.total_seconds / n for n in DEVICES}
        return {"schema": 1, "command": "train --dry-run", "recipe": self.recipe.document(), "values": values}

    def text(self, width: int | None = None) -> str:
        """The resolved recipe, then the figures, in lines of this width."""
        one, about = self.checkpoint_bytes, "about" if all(self.measured) else "at least"
        stages = ", ".join(
            f"{seconds:.3f} s (stage {i})" if measured else f"{duration(seconds)} at least, not measured (stage {i})"
            for i, (seconds, measured) in enumerate(zip(self.step_seconds, self.measured, strict=True))
        )
        several = ", ".join(duration(self.total_seconds / n) for n in DEVICES)
        rows = {
            "device": self.device,
            "parameters": f"{self.parameters:,}",
            "memory, model": _mebibytes(self.model_bytes),
            "memory, optimiser": _mebibytes(self.optimizer_bytes),
            "memory, average": _mebibytes(self.average_bytes),
            "memory, buffer": _mebibytes(self.buffer_bytes),
            "memory, starts": _mebibytes(self.starts_bytes),
            "memory, images": _mebibytes(self.images_bytes) if self.images_bytes else "read from a file",
            "memory, peak": f"{_mebibytes(self.peak_bytes)} ({'measured' if all(self.measured) else 'at least'}, with activations)",
            "disk, checkpoints": f"{_mebibytes(self.checkpoints * one)} ({self.checkpoints} of {_mebibytes(one)})",
            "one step": stages,
            "whole run": f"{self.n_steps:,} steps, {about} {duration(self.total_seconds)} (validation and saving not counted)",
            f"{', '.join(map(str, DEVICES))} devices": f"{several} (if time falls in proportion to their number; they share the buffer)",
        }
        figures = lines([Table(rows=[*rows.items()], sentences=True), *(f"warning: {warning}" for warning in self.warnings)], width)
        return "\n".join([self.recipe.dumps(), *figures])


def plan(recipe: Recipe, runs_dir: Path, force: bool = False) -> Plan:
    """Load the data, build everything, and take a few real steps of each stage; nothing is written, nor downloaded.

    Of data that have not been downloaded, black images take the place, and of a step that would take minutes, what it takes at least.

    Args:
        recipe: of the training.
        runs_dir: where its run would be.
        force: even if it needs more memory than there is.

    Raises:
        RecipeError, DataError: as ``Setup.prepare`` and ``Needs.check_memory`` do.
    """
    source: Any = recipe.data.source
    files, warnings = published(source), []
    if files and files.absent(root := Path(source.root)):
        warnings = [f"{files.name} ({files.megabytes}) is not in {root}, and `{files.command(root)}` fetches it; its size is known"]
    setup = Setup.prepare(recipe, blank(source) if warnings else None)
    needs = Needs.of(setup)
    if not force:
        needs.check_memory(setup)
    try:
        needs.check(setup, runs_dir)
    except RecipeError as error:
        warnings.append(error.message)
    state = setup.initial_state()
    per_epoch = setup.loader.steps_per_epoch
    measured = tuple(least < LIMIT for least in needs.step_seconds)
    times, moments, averages = [], [], []
    for seconds in stage_seconds(setup, state, needs.step_seconds, PATIENCE, LIMIT):
        times.append(seconds)
        moments.append(_size(t for entry in state.optimizer.state.values() for t in entry.values()))
        averages.append(_size(state.average.state_dict().values()) if state.average else 0)
    model, optimizer, average = _size(state.model.state_dict().values()), max(moments), max(averages)
    buffer = _size([state.chains.buffer.images]) if state.chains else 0
    starts = _size(state.chains.starts.tensors().values()) if state.chains else 0
    log, train = setup.recipe.log, setup.loader.split
    return Plan(
        recipe=setup.recipe,
        device=str(setup.device),
        n_steps=setup.n_steps,
        parameters=sum(p.numel() for p in state.model.parameters()),
        model_bytes=model,
        optimizer_bytes=optimizer,
        average_bytes=average,
        buffer_bytes=buffer,
        starts_bytes=starts,
        images_bytes=0 if train.mapped else len(train) * prod(setup.dataset.shape),
        peak_bytes=_peak(setup.device) if all(measured) else max(_peak(setup.device), needs.memory),
        checkpoints=log.keep + 2 if log.checkpoint_every or log.validate_every else 1,
        checkpoint_bytes=model + optimizer + average + buffer + starts,
        step_seconds=tuple(times),
        measured=measured,
        total_seconds=sum(stage.epochs * per_epoch * seconds for stage, seconds in zip(setup.recipe.stages, times, strict=True)),
        warnings=(*warnings, *setup.warnings),
    )


def _peak(device: torch.device) -> int:
    """The most memory that this process has had: tensors of a GPU, or on a CPU all that was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def stage_seconds(setup: Setup, state: TrainState, least: Sequence[float], patience: float, limit: float) -> Iterator[float]:
    """Time a step of each stage in turn; the state is then in that stage.

    Args:
        setup: of the training.
        state: which takes the steps.
        least: seconds that a step of each stage takes at least.
        patience: seconds; of steps that take as long at least, one alone is timed.
        limit: seconds; steps that take as long at least are not timed, and what they take at least stands.
    """
    start = 0
    for stage, seconds in zip(setup.recipe.stages, least, strict=True):
        step = start * setup.loader.steps_per_epoch
        if seconds < limit:
            yield step_seconds(setup, state, step, 1 + MEASURED_STEPS if seconds < patience else 1)
        else:
            _take_no_step(setup, state, step)
            yield seconds
        start += stage.epochs


def step_seconds(setup: Setup, state: TrainState, step: int, n: int) -> float:
    """Time a step. Median over ``n`` steps, the first of them, to warm up, left out where there are others."""
    update = GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device)
    seconds = []
    for _ in range(n):
        state.step = step  # the stage matters, the batch does not
        started = time.perf_counter()
        training_step(setup, state, update)
        if setup.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:] or seconds)


def _take_no_step(setup: Setup, state: TrainState, step: int) -> None:
    """Let the optimiser of a step allocate what it keeps, with gradients of 0 and an update that is skipped."""
    if (phase := setup.phase_at(step)) != state.phase:
        state.begin(phase)
    update = GuardedStep(state.optimizer, 0.0, setup.device)
    update(lambda: Loss(sum((p.sum() * 0 for p in update.parameters), torch.ones((), device=setup.device)), {}), 0.0)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * DAY else f"{seconds / DAY:,.0f} days"
