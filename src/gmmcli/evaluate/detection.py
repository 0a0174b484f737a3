"""Out-of-distribution detection of a subject, whole: measured, saved and drawn."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gmmcli.data.dataset import subset
from gmmcli.data.outliers import Outliers, default_sets, filed_name, left_out, outliers
from gmmcli.errors import DataError
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.ood import ood_protocol, ood_values
from gmmcli.metrics.outputs import outputs
from gmmcli.metrics.scores import ALL, SCORES, Score, score_names
from gmmcli.progress import image_progress
from gmmcli.types import Energies

NOISE = ("uniform", "gaussian")
Scored = dict[str, Energies]
"""Scores of images by the name of the score."""


def ood(
    subject: Subject, sets: Sequence[str] | None = None, scores: Sequence[str] | None = None, *, out: Path | None = None, quiet: bool = True
) -> Measured:
    """Out-of-distribution detection.

    Args:
        subject: the model, and the in-distribution images.
        sets: names of sets of images, as of ``--against``; by default those of ``default_sets``, of which a damaged one is
            reported as missing while the rest is measured.
        scores: names of scores, as of ``--score``.
        out: where the picture is written; by default in the run's figures/.
        quiet: without progress.

    Raises:
        DataError: a set that ``sets`` names is missing or damaged.
        RecipeError: there is no such set or score.
    """
    used, order = score_names(scores), _set_names(subject, sets)
    found, missing = _find_sets(subject, order, all_needed=bool(sets))
    fitted = _fitted(subject, used, quiet)
    inside, others = _score(subject, fitted, found, quiet)
    by_set, means = ood_values(inside, others)
    about = {name: missing.get(name) or {"n": _n(others[name]), "images": found[name].about} for name in order}
    protocol = ood_protocol(subject.gamma2) | {"in_distribution": subject.title, "sets": about}
    protocol |= {"fitted": facts} if (facts := {name: dict(score.facts) for name, score in fitted.items() if score.facts}) else {}
    result = subject.result("eval ood", protocol, {name: (by_set | missing)[name] for name in order}) | {"means": means}
    arrays = {f"{name} {score}": values.numpy() for name, some in ({"in": inside} | others).items() for score, values in some.items()}
    picture = partial(plots.save, _picture(subject, inside, others)) if others else None
    absent = "" if sets else left_out(subject.dataset, subject.run.recipe.data.source.kind)
    words, warnings = [*map(filed_name, sets or ()), *_departures(used)], [absent] if absent else []
    return save(subject, result, *words, arrays=arrays, picture=picture, out=out, warnings=warnings)


def _set_names(subject: Subject, sets: Sequence[str] | None) -> list[str]:
    """The sets meant, each once."""
    names: Iterable[str] = sets or default_sets(subject.dataset, subject.run.recipe.data.source.kind)
    return list(dict.fromkeys(one for name in names for one in (NOISE if name == "noise" else (name,))))


def _find_sets(subject: Subject, names: Sequence[str], all_needed: bool) -> tuple[dict[str, Outliers], dict[str, dict[str, Any]]]:
    """The sets of images at hand, and why the others are missing, if they may be."""
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = outliers(name, subject.dataset, subject.seed)
        except DataError as error:
            if all_needed:
                raise
            missing[name] = {"missing": error.message, "hint": error.hint}
    return found, missing


def _fitted(subject: Subject, names: Sequence[str], quiet: bool) -> dict[str, Score]:
    """The scores, fitted where they have to be, on one pass over the training images."""
    scores = {name: SCORES[name] for name in names}
    if not any(score.needs_training for score in scores.values()):
        return scores
    training = subject.training_outputs(quiet)
    return {name: score.fitted(training, subject.training.labels, subject.model.head) for name, score in scores.items()}


def _score(subject: Subject, scores: Mapping[str, Score], found: Mapping[str, Outliers], quiet: bool) -> tuple[Scored, dict[str, Scored]]:
    """Every score of the in-distribution images, and of each set's."""
    gradient = any(score.needs_gradient for score in scores.values())
    passes = {"": subject.outputs(mass=gradient, quiet=quiet)}
    for name, one in found.items():
        images = one.images[subset(len(one.images), subject.n, subject.seed)]
        with image_progress(name, len(images), quiet) as progress:
            passes[name] = outputs(subject.model, images, subject.gamma2 if gradient else None, progress)
    scored = {name: {key: score(one, subject.gamma2) for key, score in scores.items()} for name, one in passes.items()}
    return scored.pop(""), scored


def _picture(subject: Subject, inside: Scored, others: Mapping[str, Scored]) -> Figure:
    """The histograms of every score."""
    sets = {subject.title: inside, **others}
    drawn = {score: {name: some[score].numpy() for name, some in sets.items()} for score in inside}
    return plots.histograms(drawn, subject.title, f"{subject.card.recipe.name}: high = in-distribution")


def _departures(names: list[str]) -> list[str]:
    """What the scores add to a result's name."""
    return [] if names == score_names(None) else [ALL] if names == list(SCORES) else names


def _n(scores: Scored) -> int:
    return len(next(iter(scores.values())))
