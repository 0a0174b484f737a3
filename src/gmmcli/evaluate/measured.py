"""A measured subject: its result, saved in the run with the arrays behind it, and the pictures drawn of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from gmmcli.evaluate import plots
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import Outputs
from gmmcli.progress import image_progress


class Measured(NamedTuple):
    """A result object and the pictures drawn of it."""

    result: dict[str, Any]
    pictures: list[Path]
    warnings: Sequence[str] = ()


def own_outputs(subject: Subject, quiet: bool, mass: bool = False) -> Outputs:
    """The pass over the subject's own images."""
    with image_progress(f"{subject.dataset.title} {subject.split}", len(subject.images.labels), quiet) as at:
        return subject.outputs(mass=mass, at=at)


def kept(
    subject: Subject, result: dict[str, Any], figure: Figure | None, out: Path | None, arrays: Mapping[str, np.ndarray], *departures: str
) -> Measured:
    """Save a result with its arrays, and its figure in the run's figures/ or where ``out`` says."""
    name = subject.name(result["command"], *departures)
    saved = subject.run.save_result(result, name, **arrays)
    pictures = plots.save(figure, out or subject.run.path / "figures" / f"{saved.stem}.png") if figure else []
    return Measured(result, pictures)
