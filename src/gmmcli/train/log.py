"""The training log: lines of metrics.jsonl (docs/metrics.md), the note beside the progress bar, warnings about the chains."""

import time
from itertools import takewhile
from math import isfinite
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from gmmcli.core.samplers import descent_share
from gmmcli.distributed import mean, world
from gmmcli.progress import ProgressBar
from gmmcli.run import Run
from gmmcli.train.guard import GuardedStep
from gmmcli.train.health import STILL, ChainWatch, LossWatch, recognised_energy
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import StepReport
from gmmcli.train.tensorboard import TensorBoard

NOTED = {"loss": "loss", "energy_data": "E real", "energy_model": "E sampled", "accuracy": "accuracy"}


class TrainingLog:
    """Writes lines about steps, in a ``with`` block; made where a training starts, resumes or was rolled back."""

    def __init__(self, setup: Setup, run: Run, bar: ProgressBar, state: TrainState) -> None:
        self.setup, self.run, self.bar = setup, run, bar
        marginal = any(stage.objective.marginal for stage in setup.recipe.stages)
        squared = state.model.has_means and not marginal
        self.watch = ChainWatch(recognised_energy(state.model.means) if squared else None)
        since_rollback = takewhile(lambda line: line.get("event") != "rollback", reversed(run.metrics()))
        self.growth = LossWatch(setup.recipe.guard.max_loss, warned=any(line.get("event") == "unstable" for line in since_rollback))
        self.throughput = Throughput(state.step, setup.recipe.data.batch_size)
        self.board = TensorBoard(run, state.step) if setup.recipe.log.tensorboard and world().is_main else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.board:
            self.board.close()

    def log(self, line: dict[str, Any]) -> None:
        """Log one line, to wherever the recipe wants it."""
        self.run.log(line)
        if self.board:
            self.board.write(line)

    def write(self, state: TrainState, report: StepReport, update: GuardedStep, *, watched: bool) -> None:
        """Log the step just taken; a ``watched`` line, one of the regular ones, also counts for the health of the chains."""
        line = measure(self.setup, state, report)
        line |= {"grad_norm": float(update.grad_norm), "images_per_sec": self.throughput(state.step)}
        self.log({key: value if isfinite(value) else None for key, value in line.items()})
        self.bar.update(state.step, ", ".join(f"{text} {line[key]:.3g}" for key, text in NOTED.items() if key in line))
        if watched and (complaint := self.watch(line)):
            self._warn(state.step, "chains", complaint)

    def check_growth(self, step: int, loss: float) -> None:
        """Warn before a growing loss diverges; for every step whose loss the host knows."""
        if complaint := self.growth(loss):
            self._warn(step, "unstable", complaint)

    def _warn(self, step: int, event: str, complaint: str) -> None:
        self.log({"step": step, "event": event, "reason": complaint})
        self.bar.warn(f"gmmc: step {step}: {complaint}")


class Throughput:
    """Images per second since the previous call."""

    def __init__(self, step: int, batch_size: int) -> None:
        self.step, self.batch_size, self.since = step, batch_size, time.monotonic()

    def __call__(self, step: int) -> float:
        images, now = (step - self.step) * self.batch_size, time.monotonic()
        rate = images / (now - self.since)
        self.step, self.since = step, now
        return round(rate, 1)


def measure(setup: Setup, state: TrainState, report: StepReport) -> dict[str, Any]:
    """Return what a step's tensors say, as numbers, means over all processes; the one place where a plain step waits for the device."""
    found: dict[str, Tensor] = {"loss": report.loss.total.detach(), **report.loss.parts}
    if report.negatives is not None and state.chains is not None:
        moved = report.negatives.moved
        found |= {"energy_start": report.negatives.trace[0].mean(), "moved": moved.mean(), "still": (moved < STILL).float().mean()}
        if len(report.negatives.trace) > 1:
            found["descending"] = descent_share(report.negatives.trace)
    means = mean(torch.tensor([float(value) for value in found.values()], dtype=torch.float64)).tolist()
    return {
        "step": state.step,
        "epoch": round(state.step / setup.loader.steps_per_epoch, 3),
        "stage": setup.recipe.stages.index(report.stage),
        "lr": report.learning_rate,
        **dict(zip(found, means, strict=True)),
    }
