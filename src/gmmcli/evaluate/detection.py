"""Out-of-distribution detection of a subject, whole: measured, saved and drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gmmcli.data.dataset import subset
from gmmcli.data.outliers import Outliers, default_sets, outliers, title
from gmmcli.errors import DataError
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, kept, own_outputs
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.ood import ood_protocol, ood_values
from gmmcli.metrics.outputs import Outputs, outputs
from gmmcli.metrics.scores import SCORES
from gmmcli.progress import image_progress

NOISE = ("uniform", "gaussian")


def ood(
    subject: Subject,
    sets: Sequence[str] | None = None,
    scores: Sequence[str] = tuple(SCORES),
    *,
    out: Path | None = None,
    quiet: bool = True,
) -> Measured:
    """Out-of-distribution detection; a set that is unavailable is reported as missing, and the rest is measured."""
    mass = "mass" in scores
    own_words = [title(name) for name in sets or ()] + [*scores] * (tuple(scores) != tuple(SCORES))
    names = sets or default_sets(subject.dataset, subject.run.recipe.data.source.kind)
    names = list(dict.fromkeys(one for name in names for one in (NOISE if name == "noise" else (name,))))
    found: dict[str, Outliers] = {}
    about: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            found[name] = outliers(name, subject.dataset, subject.seed)
        except DataError as error:
            about[name] = {"missing": error.message, "hint": error.hint}
    own = own_outputs(subject, quiet, mass)
    others: dict[str, Outputs] = {}
    for name, one in found.items():
        images = one.images[subset(len(one.images), subject.n, subject.seed)]
        with image_progress(name, len(images), quiet) as at:
            others[name] = outputs(subject.model, images, subject.gamma2 if mass else None, at)
        about[name] = {"n": len(images), "images": one.about}
    by_set, means = ood_values(own, others, subject.gamma2, scores)
    values: dict[str, Any] = by_set | {
        name: {"missing": fact["missing"], "hint": fact["hint"]} for name, fact in about.items() if "missing" in fact
    }
    protocol = ood_protocol(subject.gamma2) | {"in_distribution": f"{subject.dataset.title} {subject.split}", "sets": about}
    result = subject.result("eval ood", protocol, {name: values[name] for name in names}) | {"means": means}
    everyone = {"": own} | others
    arrays = {
        f"{name or 'in'} {score}": SCORES[score](passed, subject.gamma2).numpy() for name, passed in everyone.items() for score in scores
    }
    if not others:
        return kept(subject, result, None, out, arrays, *own_words)
    own_name = f"{subject.dataset.title} {subject.split}"
    drawn = {score: {name or own_name: arrays[f"{name or 'in'} {score}"] for name in everyone} for score in scores}
    figure = plots.histograms(drawn, own_name, f"{subject.card.recipe.name}: high = in-distribution")
    return kept(subject, result, figure, out, arrays, *own_words)
