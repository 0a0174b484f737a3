"""Results: one JSON file for each measurement, named after it, and a .npz of the arrays it was computed from."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gmmcli.errors import RunError, StorageError
from gmmcli.progress import say
from gmmcli.run_folder import kept_elsewhere, newest_result, result_folders
from gmmcli.storage import check_writable, file_stem, read_json, write_arrays, write_text


class Results:
    """The ``results/`` of a run directory, and those that were kept elsewhere because the directory took no files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def output(self) -> Path:
        """Where results, figures and samples are written: the run directory, or where that takes no files a folder in the user's cache.

        Raises:
            StorageError: neither takes files.
            DataError: there is no cache, for want of a home folder.
        """
        try:
            check_writable(self.path / "results" / "eval.json")
        except StorageError as error:
            elsewhere = kept_elsewhere(self.path)
            check_writable(elsewhere / "results" / "eval.json")
            say(f"gmmc: {error.message}; what is written goes to {elsewhere}")
            return elsewhere
        return self.path

    def result(self, name: str) -> dict[str, Any] | None:
        """The saved result of this name, as in ``"eval accuracy"``, or None."""
        path = newest_result(self.path, f"{file_stem(name)}.json")
        return _read(path) if path else None

    def results(self) -> dict[str, dict[str, Any]]:
        """Every saved result that can be read, by the stem of its file's name; ``damaged_results`` tells of the others."""
        return {path.stem: result for path, result in self._results() if not isinstance(result, RunError)}

    def damaged_results(self) -> list[str]:
        """Why files of results/ cannot be read, a sentence each."""
        return [result.message for _, result in self._results() if isinstance(result, RunError)]

    def _results(self) -> Iterator[tuple[Path, dict[str, Any] | RunError]]:
        newest = {path.name: path for folder in result_folders(self.path) for path in folder.glob("[!.]*.json")}
        for _, path in sorted(newest.items()):
            try:
                yield path, _read(path)
            except RunError as error:
                yield path, error

    def arrays(self, stem: str) -> dict[str, np.ndarray]:
        """The arrays that a saved result was computed from; empty where none were saved, or with a warning where they are damaged."""
        path = newest_result(self.path, f"{stem}.npz")
        if path is None:
            return {}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # numpy leaves one that is damaged open
                return dict(archive)
        except (OSError, ValueError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            say(f"gmmc: warning: {path} is damaged ({error}): measure again for what is drawn of it")
            return {}

    def save_result(self, result: dict[str, Any], name: str = "", **arrays: np.ndarray) -> Path:
        """Write a result, named by its command or otherwise, and a .npz of the arrays it was computed from; return the JSON file's path."""
        path = self.output / "results" / f"{file_stem(name or result['command'])}.json"
        if arrays:
            write_arrays(path.with_suffix(".npz"), **arrays)
        write_text(path, json.dumps(result, indent=1))
        return path


def _read(path: Path) -> dict[str, Any]:
    """Read a result; RunError for a file that is none."""
    result = read_json(path)
    if not isinstance(result.get("command"), str) or not isinstance(result.get("values"), dict):
        raise RunError(f"{path} is damaged: it is not a result of gmmc", "remove it, and measure again")
    return result


def departures(settings: Any, defaults: Any) -> list[str]:
    """Return the fields in which a dataclass differs from its defaults, as words: ``["steps 100"]``."""
    pairs = [(field.name, getattr(settings, field.name), getattr(defaults, field.name)) for field in fields(settings)]
    return [f"{name} {value}" for name, value, default in pairs if value != default]
