"""A measured subject: its result, saved in the run with the arrays behind it, and the pictures drawn of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gmmcli.distributed import once
from gmmcli.evaluate.subject import Subject
from gmmcli.storage import finite, placed

Picture = Callable[[Path], list[Path]]
"""Draws to a path and returns the files it wrote, as ``partial(plots.save, figure)`` and ``partial(save_grid, rows)`` do."""


class Measured(NamedTuple):
    """A result object and the pictures drawn of it."""

    result: dict[str, Any]
    pictures: list[Path]
    warnings: Sequence[str] = ()


def save(
    subject: Subject,
    result: dict[str, Any],
    *words: str,
    arrays: Mapping[str, np.ndarray],
    picture: Picture | None = None,
    out: Path | None = None,
    warnings: Sequence[str] = (),
) -> Measured:
    """Save a result with its arrays, and its picture under the same name in the run's figures/, or at ``out``.

    Of several processes the main one saves, and the others have no pictures.

    Args:
        subject: what was measured.
        result: its result object (``Subject.result``); of its numbers those that are not finite become null.
        words: the settings that differ from their defaults, for the name (``Subject.name``).
        arrays: what the values were computed from, saved beside them as .npz.
        picture: draws it.
        out: where to draw it.
        warnings: to show with the result.
    """
    result = finite(result)

    def write() -> list[Path]:
        path = subject.run.save_result(result, subject.name(result["command"], *words), **arrays)
        return picture(placed(out, subject.run.output / "figures" / f"{path.stem}.png")) if picture else []

    return Measured(result, once(write), warnings)
