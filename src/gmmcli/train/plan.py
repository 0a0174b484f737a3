"""``--dry-run``: memory and time of a training, measured on this machine."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import training_step

MEASURED_STEPS = 3


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
    step_seconds: tuple[float, ...]
    """One per stage."""
    total_seconds: float
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        values = {name: value for name, value in vars(self).items() if name != "recipe"}
        return {"schema": 1, "command": "train --dry-run", "recipe": self.recipe.document(), "values": values}

    def text(self) -> str:
        """The resolved recipe, then the figures."""
        stages = ", ".join(f"{seconds:.3f} s (stage {i})" for i, seconds in enumerate(self.step_seconds))
        lines = [
            self.recipe.dumps(),
            f"device            {self.device}",
            f"parameters        {self.parameters:,}",
            f"memory, model     {_mebibytes(self.model_bytes)}",
            f"memory, optimiser {_mebibytes(self.optimizer_bytes)}",
            f"memory, average   {_mebibytes(self.average_bytes)}",
            f"memory, buffer    {_mebibytes(self.buffer_bytes)}",
            f"one step          {stages}",
            f"whole run         {self.n_steps:,} steps, about {_duration(self.total_seconds)} (validation and saving not counted)",
            *(f"warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def plan(recipe: Recipe) -> Plan:
    """Load the data, build everything, and take a few real steps of each stage; nothing is written."""
    setup = Setup.prepare(recipe)
    state = setup.initial_state()
    per_epoch = setup.loader.steps_per_epoch
    times, moments, averages, start = [], [], [], 0
    for stage in setup.recipe.stages:
        times.append(_step_seconds(setup, state, start * per_epoch))
        moments.append(_size(t for entry in state.optimizer.state.values() for t in entry.values()))
        averages.append(_size(state.average.state_dict().values()) if state.average else 0)
        start += stage.epochs
    parameters = sum(p.numel() for p in state.model.parameters())
    return Plan(
        setup.recipe,
        str(setup.device),
        setup.n_steps,
        parameters,
        _size(state.model.state_dict().values()),
        max(moments),
        max(averages),
        _size([state.chains.buffer.images] if state.chains else []),
        tuple(times),
        sum(stage.epochs * per_epoch * seconds for stage, seconds in zip(setup.recipe.stages, times, strict=True)),
        tuple(setup.warnings),
    )


def _step_seconds(setup: Setup, state: TrainState, step: int) -> float:
    """Median over a few steps, after one warm-up step."""
    update = GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device)
    seconds = []
    for _ in range(1 + MEASURED_STEPS):
        state.step = step  # the stage matters, the batch does not
        started = time.perf_counter()
        training_step(setup, state, update)
        if setup.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
