"""A run's folder without opening the run: which one is meant, how it ended, whether it is being trained. No torch."""

import fcntl
import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gmmcli.errors import RunError
from gmmcli.storage import is_file, open_lock, read_json


def default_runs_dir() -> Path:
    """$GMMC_RUNS_DIR, or ./runs."""
    return Path(os.environ.get("GMMC_RUNS_DIR", "runs"))


def run_folders(runs_dir: Path) -> list[Path]:
    """The folders of runs in a directory, oldest first."""
    return [path for path in sorted(runs_dir.glob("*")) if (path / "recipe.toml").is_file()]


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
    folders = run_folders(runs_dir)
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


def provenance_of(path: Path) -> dict[str, Any]:
    """What a run's provenance.json records; RunError where it is damaged."""
    file = path / "provenance.json"
    return read_json(file) if file.exists() else {}


def status_of(path: Path) -> str:
    """The status that provenance.json records; ``killed`` where a training should be running and no process holds the run's lock."""
    recorded = str(provenance_of(path).get("status", "unknown"))
    return "killed" if recorded == "running" and not is_trained(path) else recorded


def is_trained(path: Path) -> bool:
    """Whether a process is training the run: it then holds the lock."""
    try:
        with open_lock(path / ".lock", os.O_RDONLY) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError) as error:
        return isinstance(error, BlockingIOError)
    return False


def newest_preview(path: Path) -> Path | None:
    """The picture of a run's chains that was drawn last; None where there is none."""
    found = [(picture.stat().st_mtime_ns, picture) for picture in (path / "samples").glob("preview-*.png")]
    return max(found)[1] if found else None


def _no_run(name: str | Path | None, ids: list[str], runs_dir: Path) -> RunError:
    """The error of a run that is not there, with the nearest that is."""
    if name is None or not ids:
        return RunError(f"no run {name} in {runs_dir}" if name else f"no run in {runs_dir}", "train one first: gmmc train digits_gen")
    names = {id: id for id in ids} | {re.sub(r"^.*?Z-", "", id): id for id in ids}  # ids, and the recipes' names in them
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the newest is {ids[-1]}; `gmmc runs ls` lists all {len(ids)}"
    return RunError(f"no run {name} in {runs_dir}", hint)
