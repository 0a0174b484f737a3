"""A run directory as a training writes it, line by line, without training."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gmmcli.data.pictures import save_grid

RECIPE = """name = "small"
[data]
batch_size = 10
[[stages]]
epochs = 2
[[stages]]
epochs = 8
"""


def begun(folder: Path, stamp: str = "2026-01-01T000000Z", **facts: Any) -> Path:
    """A run of 100 steps whose training has begun and logged nothing."""
    path = folder / f"{stamp}-small"
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text(RECIPE)
    (path / ".lock").touch()
    described(path, **facts)
    return path


def described(path: Path, **facts: Any) -> None:
    (path / "provenance.json").write_text(json.dumps({"status": "running", "steps": 100} | facts))


def logged(path: Path, *lines: dict[str, Any]) -> None:
    with (path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def line(step: int, **more: Any) -> dict[str, Any]:
    """A regular line of a training that learns: ten steps an epoch, 50 images a second."""
    values = {"loss": 100 / step, "energy_data": 60 / step, "energy_model": 50 / step, "accuracy": step / 100}
    return {"step": step, "epoch": step / 10, "stage": int(step > 20), "images_per_sec": 50.0} | values | more


def previewed(path: Path, step: int, size: int = 8) -> Path:
    """A preview of three classes, whose images are black, grey and white."""
    rows = [(name, torch.full((4, 1, size, size), grey)) for name, grey in (("no", -1.0), ("half", 0.0), ("all", 1.0))]
    return save_grid(rows, path / "samples" / f"preview-{step:08d}.png", f"after {step} steps")[0]


@contextmanager
def trained(path: Path) -> Iterator[None]:
    """The run as a process that trains it holds it."""
    with (path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
