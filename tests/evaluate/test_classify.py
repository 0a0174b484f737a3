"""Verdicts on single images: whose class, how probable, and whether known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gmmcli.data.dataset import Split
from gmmcli.errors import DataError
from gmmcli.evaluate.classify import KNOWN, LEAST, Judgement
from gmmcli.evaluate.subject import Subject
from gmmcli.types import to_model


def test_of_the_validation_images_as_many_are_known_as_the_threshold_says(subject: Subject) -> None:
    known = [verdict.known for verdict in Judgement(subject)(subject.validation.batch()[0])]
    assert KNOWN <= np.mean(known) < KNOWN + 1 / 60  # one image fewer would be too few


def test_classes_and_densities_are_those_of_the_model(subject: Subject) -> None:
    images, _ = subject.images.batch()
    with torch.no_grad():
        logits = subject.model(to_model(images)).double()
    verdicts = Judgement(subject)(images)
    assert [verdict.label for verdict in verdicts] == [subject.card.class_names[k] for k in logits.argmax(1)]
    assert [verdict.log_density for verdict in verdicts] == pytest.approx(torch.logsumexp(logits / subject.gamma2, 1).tolist(), rel=1e-5)


def test_probabilities_are_platt_scaled_on_the_validation_images(subject: Subject) -> None:
    """scikit-learn's maximum-likelihood slope of a two-class problem is 1/T: the logits of two classes, one against the other."""
    keep = (subject.validation.labels < 2).nonzero().squeeze(1)
    logits, labels = subject.held_out.logits[keep][:, :2], subject.validation.labels[keep]
    labels[0] = 1 - labels[0]  # one wrong answer, or there would be no temperature
    two = replace(subject)
    vars(two).update(held_out=subject.held_out._replace(logits=logits), validation=Split(subject.validation.images[keep], labels))
    margins = (logits[:, 1] - logits[:, 0]).double().numpy()[:, None]
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(margins, labels.numpy()).coef_.item()
    assert 1 / Judgement(two).temperature == pytest.approx(slope, rel=1e-3)


def test_without_a_wrong_validation_image_probabilities_are_at_gamma2(subject: Subject) -> None:
    vars(subject).update(temperature=None)
    judge = Judgement(subject)
    assert judge.temperature == subject.gamma2
    assert judge.protocol["temperature_fitted"] is False


def test_too_few_validation_images_are_refused(subject: Subject) -> None:
    images, labels = subject.validation.batch()
    vars(subject).update(validation=Split(images[: LEAST - 1], labels[: LEAST - 1]))
    with pytest.raises(DataError, match=f"has {LEAST - 1} validation images, and at least {LEAST}"):
        Judgement(subject)(images)
