"""What a training records beside its checkpoints: lines of metrics.jsonl, and pictures of its chains."""

import time
from pathlib import Path
from typing import Any

from gmmcli.core.buffer import decode
from gmmcli.core.samplers import descent_share
from gmmcli.data.pictures import save_grid
from gmmcli.train.health import STILL
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import StepReport

PREVIEW_ROWS, PREVIEW_COLUMNS = 20, 10
SHOWN = {"loss": "loss", "energy_data": "E real", "energy_model": "E sampled", "accuracy": "accuracy"}


class Rate:
    """Images per second since the last time it was asked."""

    def __init__(self, step: int, batch_size: int) -> None:
        self.step, self.batch_size, self.since = step, batch_size, time.monotonic()

    def __call__(self, step: int) -> float:
        images, now = (step - self.step) * self.batch_size, time.monotonic()
        rate = images / (now - self.since)
        self.step, self.since = step, now
        return round(rate, 1)


def measure(setup: Setup, state: TrainState, report: StepReport) -> dict[str, Any]:
    """One line for metrics.jsonl (docs/metrics.md); the one place where a plain step waits for the device."""
    line: dict[str, Any] = {
        "step": state.step,
        "epoch": round(state.step / setup.loader.steps_per_epoch, 3),
        "stage": setup.recipe.stages.index(report.stage),
        "lr": report.learning_rate,
        "loss": float(report.loss.total.detach()),
    }
    line |= {name: float(value) for name, value in report.loss.parts.items()}
    if report.negatives is not None and state.chains is not None:
        moved = report.negatives.moved
        line |= {"energy_start": float(report.negatives.trace[0].mean()), "moved": float(moved.mean())}
        line["still"] = float((moved < STILL).float().mean())
        if len(report.negatives.trace) > 1:
            line["descending"] = float(descent_share(report.negatives.trace))
    return line


def summary(line: dict[str, Any]) -> str:
    """The figures of a line that the progress bar shows."""
    return ", ".join(f"{text} {line[key]:.3g}" for key, text in SHOWN.items() if key in line)


def preview(setup: Setup, state: TrainState, path: Path) -> None:
    """Draw the first chains of each class in the buffer; nothing without chains, and no names where chains have no class."""
    if state.chains is None:
        return
    images = decode(state.chains.buffer.images[:PREVIEW_ROWS, :PREVIEW_COLUMNS])
    named = not setup.recipe.chains.classless
    rows = list(zip((name if named else "" for name in setup.dataset.class_names), images, strict=False))
    save_grid(rows, path, f"{setup.recipe.name}: chains after {state.step} training steps")
