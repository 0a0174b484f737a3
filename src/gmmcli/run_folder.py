"""Run directories as they lie on disk, told without torch, however many there are."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from gmmcli import toml
from gmmcli.errors import DataError, RecipeError, RunError
from gmmcli.hints import nearest
from gmmcli.storage import cache_dir, is_file, open_lock, read_json

MANIFEST = "manifest.json"
OLD = ".old-"  # before the name of a checkpoint that is about to be replaced
NAME = re.compile(rf"({re.escape(OLD)})?step-([0-9]{{8,19}})")


class RunFolder:
    """What a run directory says of itself (docs/run-directory.md)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def provenance(self) -> dict[str, Any]:
        """What provenance.json records: how the run was made, and its status; RunError where it is damaged."""
        path = self.path / "provenance.json"
        return read_json(path) if path.exists() else {}

    @property
    def status(self) -> str:
        """The status that provenance.json records; ``killed`` where a training should be running and no process holds the run's lock."""
        recorded = str(self.provenance.get("status", "unknown"))
        return "killed" if recorded == "running" and not self.is_locked else recorded

    @property
    def is_locked(self) -> bool:
        """Whether a process is training the run."""
        try:
            with open_lock(self.path / ".lock", os.O_RDONLY) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError) as error:
            return isinstance(error, BlockingIOError)
        return False

    @cached_property
    def document(self) -> dict[str, Any]:
        """The recipe as plain tables, unchecked; empty where it cannot be read."""
        path = self.path / "recipe.toml"
        try:
            return toml.parse(toml.read(path), str(path))
        except RecipeError:
            return {}

    @property
    def step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return max(complete(self.path / "checkpoints"), default=None)

    @property
    def test_accuracy(self) -> float | None:
        """The test accuracy that ``gmmc train`` or ``gmmc eval accuracy`` measured; None where there is none that can be read."""
        path = newest_result(self.path, "eval-accuracy.json")
        try:
            found = read_json(path)["values"]["accuracy"] if path else None
        except (RunError, OSError, LookupError, TypeError):
            return None
        return found if isinstance(found, float) else None


def kept_elsewhere(path: Path) -> Path:
    """The folder of the user's cache for what is written of a run whose directory takes no files; DataError where there is no cache."""
    digest = sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()
    return cache_dir() / "runs" / f"{path.name}-{digest[:16]}"


def result_folders(path: Path) -> list[Path]:
    """Where a run's results may be, its own directory first; of two with one name the other one is newer."""
    folders = [path]
    with suppress(DataError):
        folders.append(kept_elsewhere(path))
    return [folder / "results" for folder in folders]


def newest_result(path: Path, name: str) -> Path | None:
    """The file of this name among a run's results; None where there is none."""
    return next((folder / name for folder in reversed(result_folders(path)) if (folder / name).exists()), None)


def complete(folder: Path) -> dict[int, Path]:
    """The complete checkpoints of a folder by their steps, the oldest first.

    One that was renamed to make place for another of its step counts until that one has come.
    """
    found = [(NAME.fullmatch(path.name), path) for path in (*folder.glob(f"{OLD}step-*"), *folder.glob("step-*"))]
    by_step = {int(name[2]): path for name, path in found if name and (path / MANIFEST).is_file()}
    return dict(sorted(by_step.items()))


def default_runs_dir() -> Path:
    """$GMMC_RUNS_DIR, or ./runs."""
    return Path(os.environ.get("GMMC_RUNS_DIR", "runs"))


def run_paths(runs_dir: Path) -> Iterator[Path]:
    """The run directories of a directory, oldest first."""
    return (path for path in sorted(runs_dir.glob("*")) if (path / "recipe.toml").is_file())


def every_run_path(runs_dir: Path) -> list[Path]:
    """The run directories of a directory and of the studies in it, oldest first."""
    found: list[Path] = []
    for path in runs_dir.glob("*"):
        found += [path] if (path / "recipe.toml").is_file() else run_paths(path)
    return sorted(found, key=lambda path: (path.name, path))


def find_run(name: str | Path | None, runs_dir: Path | None, qualifies: Callable[[Path], bool] = lambda path: True) -> Path:
    """Return a run's folder by path, id, unique prefix or its recipe's name; else $GMMC_RUN; else the newest.

    Args:
        name: the run, or None for the default.
        runs_dir: where runs are; $GMMC_RUNS_DIR or ./runs by default.
        qualifies: which folders count for a recipe's name, of which the newest is meant, and for the default.

    Raises:
        RunError: no run matches, or several do.
    """
    if name == "":  # of an unset variable, perhaps; not a wish for whatever is the newest
        raise RunError("the name of the run is empty", "leave out --run for the newest")
    runs_dir = runs_dir or default_runs_dir()
    name = name or os.environ.get("GMMC_RUN")
    if name is not None and is_file(Path(name) / "recipe.toml"):
        return Path(name)
    folders = [*run_paths(runs_dir)]
    found = [path for path in folders if name is not None and path.name.startswith(str(name))]
    found = [path for path in found if path.name == str(name)] or found
    if len(found) > 1:
        raise RunError(f"{name} is a prefix of {len(found)} runs: {', '.join(path.name for path in found)}", "give a longer prefix")
    if not found:
        named = re.compile(rf"[^Z]+Z-{re.escape(str(name))}(-\d+)?")
        found = [path for path in folders if (name is None or named.fullmatch(path.name)) and qualifies(path)][-1:]
    if not found:
        raise _no_run(name, [path.name for path in folders], runs_dir)
    return found[0]


def newest_preview(path: Path) -> Path | None:
    """The picture of a run's chains that was drawn last; None where there is none."""
    found = [(picture.stat().st_mtime_ns, picture) for picture in (path / "samples").glob("preview-*.png")]
    return max(found)[1] if found else None


def _no_run(name: str | Path | None, ids: list[str], runs_dir: Path) -> RunError:
    """The error of a run that is not there, with the nearest that is."""
    if name is None or not ids:
        return RunError(f"no run {name} in {runs_dir}" if name else f"no run in {runs_dir}", "train one first: gmmc train digits_gen")
    near = nearest(str(name), [*ids, *(re.sub(r"^.*?Z-", "", id) for id in ids)])  # ids, and the recipes' names in them
    hint = f"did you mean {near}?" if near else f"the newest is {ids[-1]}; `gmmc runs ls` lists all {len(ids)}"
    return RunError(f"no run {name} in {runs_dir}", hint)
