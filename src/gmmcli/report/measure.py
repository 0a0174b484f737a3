"""Evaluations of a subject, whole: measured, saved in the run with the arrays behind them, and drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from gmmcli.data.outliers import Outliers, default_sets, outliers, title
from gmmcli.errors import DataError
from gmmcli.evaluate.subject import Subject, chosen
from gmmcli.metrics.accuracy import accuracy_protocol, accuracy_values
from gmmcli.metrics.calibration import calibration_protocol, calibration_values, calibration_warnings, fit_temperature, with_validation
from gmmcli.metrics.ood import ood_protocol, ood_values
from gmmcli.metrics.outputs import Outputs, outputs
from gmmcli.metrics.scores import SCORES
from gmmcli.progress import Voice
from gmmcli.report import figures
from gmmcli.types import Labels

NOISE = ("uniform", "gaussian")


class Measured(NamedTuple):
    """A result object and the pictures drawn of it."""

    result: dict[str, Any]
    pictures: list[Path]
    warnings: Sequence[str] = ()


@contextmanager
def progress(title: str, n: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Say how many of n images are done."""
    with Voice(title, n, quiet, unit="images") as voice:
        yield voice.at


def tested(subject: Subject, quiet: bool, mass: bool = False) -> Outputs:
    """The pass over the subject's own images."""
    with progress(f"{subject.dataset.title} {subject.split}", len(subject.images.labels), quiet) as at:
        return subject.outputs(mass=mass, at=at)


def accuracy(subject: Subject, *, out: Path | None = None, quiet: bool = True) -> Measured:
    """Accuracy, NLL, Brier score and the confusion matrix."""
    own, labels, gamma2 = tested(subject, quiet), subject.images.labels, subject.gamma2
    values = accuracy_values(own.logits, labels, gamma2, subject.card.class_names)
    result = subject.result("eval accuracy", accuracy_protocol(gamma2), values)
    title = f"{subject.card.recipe.name}: {values['accuracy']:.2%} of n = {len(labels):,}"
    figure = figures.confusion(values["confusion"], subject.card.class_names, title)
    return _kept(subject, result, figure, out, _logits(own, labels))


def calibrate(subject: Subject, *, out: Path | None = None, quiet: bool = True) -> Measured:
    """Calibration at three scales."""
    own, labels, gamma2 = tested(subject, quiet), subject.images.labels, subject.gamma2
    validation = subject.validation
    held_out = outputs(subject.model, validation.images).logits
    temperature = fit_temperature(held_out, validation.labels)
    values = with_validation(calibration_values(own.logits, labels, gamma2, temperature), held_out, validation.labels)
    result = subject.result("eval calibrate", calibration_protocol(gamma2, len(validation.labels), temperature is not None), values)
    figure = figures.reliability(
        values["variants"], f"{subject.card.recipe.name}, {subject.dataset.title} {subject.split}, n = {len(labels):,}"
    )
    measured = _kept(subject, result, figure, out, _logits(own, labels))
    return measured._replace(warnings=calibration_warnings(values, temperature is not None))


def ood(
    subject: Subject,
    sets: Sequence[str] | None = None,
    scores: Sequence[str] = tuple(SCORES),
    *,
    out: Path | None = None,
    quiet: bool = True,
) -> Measured:
    """Out-of-distribution detection; a set that is not to be had is reported as missing, and the rest is measured."""
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
    own = tested(subject, quiet, mass)
    others: dict[str, Outputs] = {}
    for name, one in found.items():
        images = one.images[chosen(len(one.images), subject.n, subject.seed)]
        with progress(name, len(images), quiet) as at:
            others[name] = outputs(subject.model, images, subject.gamma2 if mass else None, at)
        about[name] = {"n": len(images), "images": one.about}
    values: dict[str, Any] = ood_values(own, others, subject.gamma2, scores)
    values |= {name: {"missing": fact["missing"], "hint": fact["hint"]} for name, fact in about.items() if "missing" in fact}
    protocol = ood_protocol(subject.gamma2) | {"in_distribution": f"{subject.dataset.title} {subject.split}", "sets": about}
    result = subject.result("eval ood", protocol, {name: values[name] for name in names})
    everyone = {"": own} | others
    arrays = {
        f"{name or 'in'} {score}": SCORES[score](passed, subject.gamma2).numpy() for name, passed in everyone.items() for score in scores
    }
    if not others:
        return _kept(subject, result, None, out, arrays, *own_words)
    own_name = f"{subject.dataset.title} {subject.split}"
    drawn = {score: {name or own_name: arrays[f"{name or 'in'} {score}"] for name in everyone} for score in scores}
    figure = figures.histograms(drawn, own_name, f"{subject.card.recipe.name}: high = in-distribution")
    return _kept(subject, result, figure, out, arrays, *own_words)


def _logits(own: Outputs, labels: Labels) -> dict[str, np.ndarray]:
    """What the figures can be computed from again."""
    return {"logits": own.logits.numpy(), "labels": labels.numpy()}


def _kept(
    subject: Subject, result: dict[str, Any], figure: Figure | None, out: Path | None, arrays: Mapping[str, np.ndarray], *departures: str
) -> Measured:
    """Save a result with its arrays, and its figure in the run's figures/ or where ``out`` says."""
    name = subject.name(result["command"], *departures)
    saved = subject.run.save_result(result, name, **arrays)
    pictures = figures.save(figure, out or subject.run.path / "figures" / f"{saved.stem}.png") if figure else []
    return Measured(result, pictures)
