"""A run that is watched: what its files say of the training so far."""

from collections import deque
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from gmmcli import toml
from gmmcli.errors import RunError
from gmmcli.run_folder import RunFolder, newest_preview
from gmmcli.watch.tail import Curve, Tail

CURVES = ("loss", "validation_accuracy", "energy_data", "energy_model", "accuracy", "sample_distance")
LAST_EVENTS = 20
SPEEDS = 20
"""Last lines whose median speed is that of the training."""


class Watched:
    """A run directory that is looked at again and again (``refresh``); nothing in it is written or locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail = Tail(path / "metrics.jsonl")
        self._begin()

    def _begin(self) -> None:
        self.curves = {key: Curve() for key in CURVES}
        self.events: deque[dict[str, Any]] = deque(maxlen=LAST_EVENTS)
        self.last: dict[str, Any] = {}
        """The last regular line of metrics.jsonl."""
        self.validated: dict[str, Any] = {}
        """The last line of a validation."""
        self._speeds: deque[float] = deque(maxlen=SPEEDS)

    def refresh(self) -> list[dict[str, Any]]:
        """Look at the run again; return the lines of its log that are new.

        Raises:
            RunError: the run was removed, or provenance.json is damaged.
        """
        try:
            run = RunFolder(self.path)
            self.ended = not run.is_locked  # before its last lines are read
            self.status, self.provenance = run.status, run.provenance
            self.recipe = toml.parse(self._file("recipe.toml").read_text(encoding="utf-8"), "recipe.toml")
            lines, anew = self._tail.look()
            self.logged_at = self._tail.changed_at
            self.preview = newest_preview(self.path)
        except FileNotFoundError:
            raise RunError(f"{self.path} was removed or moved while it was watched", "`gmmc runs ls` lists those that are there") from None
        if anew:
            self._begin()
        for line in lines:
            if isinstance(line.get("step"), int):
                self._take(line)
        return lines

    def _file(self, name: str) -> Path:
        """A file of the run; FileNotFoundError where there is none."""
        (self.path / name).stat()
        return self.path / name

    def _take(self, line: dict[str, Any]) -> None:
        if "event" in line:
            self.events.append(line)
            to_step = line.get("to_step")
            if isinstance(to_step, int):  # a rollback: these steps are taken again
                for curve in self.curves.values():
                    curve.forget_after(to_step)
        elif "validation_accuracy" in line:
            self.validated = line
        elif "loss" in line:
            if line.get("stage") != self.last.get("stage"):
                self._speeds.clear()
            self.last = line
            if speed := number(line, "images_per_sec"):
                self._speeds.append(speed)
        for key, curve in self.curves.items():
            if (value := number(line, key)) is not None:
                curve.add(line["step"], value)

    @property
    def step(self) -> int:
        """The last training step that was logged."""
        return int(self.last.get("step", 0))

    @property
    def total(self) -> int | None:
        """The training steps of all stages; None in a run of an earlier version, which has not noted it."""
        steps = self.provenance.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def seconds_left(self) -> float | None:
        """How long the remaining steps take at the speed of the last lines of this stage; None where that is not known, or no more."""
        size = self.recipe.get("data", {}).get("batch_size")
        if self.ended or not self.total or not self._speeds or not isinstance(size, int):
            return None
        return max(0, self.total - self.step) * size / median(self._speeds)

    def document(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return {
            "path": str(self.path),
            "status": self.status,
            "trained_now": not self.ended,
            "step": self.step,
            "steps": self.total,
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left),
            "last_metrics": self.last or None,
            "last_validation": self.validated or None,
            "events": [*self.events],
            "preview": str(self.preview) if self.preview else None,
        }


def number(line: dict[str, Any], key: str) -> float | None:
    """A finite number of a line; None where there is none."""
    value = line.get(key)
    return float(value) if isinstance(value, (int, float)) and isfinite(value) else None
