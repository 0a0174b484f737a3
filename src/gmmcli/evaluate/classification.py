"""Accuracy and calibration of a subject, whole: measured, saved and drawn."""

from functools import partial
from pathlib import Path

import numpy as np

from gmmcli.errors import DataError
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.accuracy import accuracy_protocol, accuracy_values
from gmmcli.metrics.calibration import calibration_protocol, calibration_values, calibration_warnings, with_validation
from gmmcli.metrics.metric import METRICS, with_metrics
from gmmcli.metrics.outputs import Outputs
from gmmcli.types import Labels


def accuracy(subject: Subject, *, out: Path | None = None, quiet: bool = True) -> Measured:
    """Accuracy, NLL, Brier score and the confusion matrix."""
    predicted, labels, gamma2 = subject.outputs(quiet=quiet), subject.images.labels, subject.gamma2
    try:
        temperature = subject.temperature
    except DataError:  # other images are being measured, and the run's, with its validation images, are gone
        temperature = None
    values = accuracy_values(predicted.logits, labels, gamma2, subject.card.class_names, temperature)
    values = with_metrics(values, METRICS, predicted.logits, labels, gamma2)
    result = subject.result("eval accuracy", accuracy_protocol(gamma2, temperature), values)
    title = f"{subject.card.recipe.name}: {values['accuracy']:.2%} of n = {len(labels):,}"
    figure = plots.confusion(values["confusion"], subject.card.class_names, title)
    return save(subject, result, arrays=_logits(predicted, labels), picture=partial(plots.save, figure), out=out)


def calibrate(subject: Subject, *, out: Path | None = None, quiet: bool = True) -> Measured:
    """Calibration at three scales."""
    predicted, labels, gamma2 = subject.outputs(quiet=quiet), subject.images.labels, subject.gamma2
    validation, held_out, temperature = subject.validation, subject.held_out.logits, subject.temperature
    values = with_validation(calibration_values(predicted.logits, labels, gamma2, temperature), held_out, validation.labels)
    result = subject.result("eval calibrate", calibration_protocol(gamma2, len(validation.labels), temperature is not None), values)
    figure = plots.reliability(values["variants"], f"{subject.card.recipe.name}, {subject.title}, n = {len(labels):,}")
    return save(
        subject,
        result,
        arrays=_logits(predicted, labels),
        picture=partial(plots.save, figure),
        out=out,
        warnings=calibration_warnings(values, temperature is not None),
    )


def _logits(predicted: Outputs, labels: Labels) -> dict[str, np.ndarray]:
    """What the values can be computed from again."""
    return {"logits": predicted.logits.numpy(), "labels": labels.numpy()}
