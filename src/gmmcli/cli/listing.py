"""Runs in a list: a row each, at any width."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gmmcli.cli.options import note
from gmmcli.errors import LONGEST_QUOTED, RunError, shortened
from gmmcli.overrides import differences
from gmmcli.run_folder import RunFolder

FEW = 4
"""Differing keys that a list shows of a run, unless it is to be wide."""
COLUMNS = ("run", "recipe", "seed", "status", "step", "accuracy", "created", "hours", "device", "study", "changed")


@dataclass(frozen=True)
class Row:
    """What a list tells of a run."""

    run: str
    """Its id; of a run of a study the path, by which ``--run`` finds it."""
    recipe: str | None
    seed: int | None
    status: str
    step: int | None
    """Of the newest complete checkpoint."""
    accuracy: float | None
    """On the test images."""
    created: str | None
    hours: float | None
    """Of training, all resumes together."""
    device: str | None
    study: str | None
    """The folder of the study that it belongs to."""
    changed: dict[str, Any]
    """The keys of its recipe that differ among the listed runs of the same name, apart from the seed."""

    def cells(self) -> list[str]:
        """In words, for a terminal."""
        seed, accuracy = "seed ?" if self.seed is None else f"seed {self.seed}", self.accuracy
        changed = [f"{key}={shortened(_toml(value), LONGEST_QUOTED)}" for key, value in self.changed.items()]
        return [
            self.run,
            self.status,
            "no checkpoint" if self.step is None else f"step {self.step:,}",
            seed,
            "" if accuracy is None else f"test accuracy {accuracy:.2%}",
            " ".join(changed[:FEW]) + (f" and {len(changed) - FEW} more" if len(changed) > FEW else ""),
        ]

    def wide(self) -> list[str]:
        """Every column as text, exactly."""
        changed = " ".join(f"{key}={_toml(value)}" for key, value in self.changed.items())
        return ["" if value is None else str(value) for value in (asdict(self) | {"changed": changed}).values()]


def _toml(value: Any) -> str:
    """A value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def shown(path: Path, runs_dir: Path) -> str:
    """What a run is called in a list: its id, by which ``--run`` finds it, or where it lies deeper its path."""
    return path.name if path.parent == runs_dir else str(path)


def rows(paths: Sequence[Path], runs_dir: Path) -> list[Row]:
    """Read the rows of runs; what cannot be read is said on stderr, and hides no other."""
    folders = [RunFolder(path) for path in paths]
    by_name = defaultdict(list)
    for folder in folders:
        by_name[folder.document.get("name")].append(folder)
    changed = {
        folder.path: {key: value for key, value in found.items() if key != "seed"}
        for fellows in by_name.values()
        for folder, found in zip(fellows, differences([fellow.document for fellow in fellows]), strict=True)
    }
    return [_row(folder, runs_dir, changed[folder.path]) for folder in folders]


def _row(folder: RunFolder, runs_dir: Path, changed: dict[str, Any]) -> Row:
    try:
        told, status = folder.provenance, folder.status
    except RunError as error:
        note(f"warning: {error.message}")
        told, status = {}, "damaged"
    seconds, document = told.get("wall_time_s"), folder.document
    return Row(
        run=shown(folder.path, runs_dir),
        recipe=_of(str, document.get("name")),
        seed=_of(int, document.get("seed")),
        status=status,
        step=folder.step,
        accuracy=folder.test_accuracy,
        created=_of(str, told.get("created")),
        hours=round(seconds / 3600, 3) if isinstance(seconds, (int, float)) else None,
        device=_of(str, told.get("device")),
        study=None if folder.path.parent == runs_dir else folder.path.parent.name,
        changed=changed,
    )


def _of(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else None
