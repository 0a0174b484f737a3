"""Accuracy, and the proper scores of p(y|x)."""

from typing import Any

import torch
from torch import Tensor

from gmmcli.core.energy import class_log_probs
from gmmcli.metrics.intervals import OF_MEANS, mean_interval, wilson_interval
from gmmcli.types import Labels, Logits


def negative_log_likelihoods(log_probs: Logits, labels: Labels) -> Tensor:
    """Return ``-log p(y|x)`` of each image, in nats."""
    return -log_probs.gather(1, labels[:, None]).squeeze(1)


def brier_scores(log_probs: Logits, labels: Labels) -> Tensor:
    """Return ``sum_k (p(k|x) - [k = y])^2`` of each image (Brier 1950): 0 is certain and right, 2 certain and wrong."""
    return (log_probs.exp() - torch.nn.functional.one_hot(labels, log_probs.shape[1])).square().sum(1)


def means_over_images(log_probs: Logits, labels: Labels) -> dict[str, Any]:
    """Return ``nll`` and ``brier`` with their intervals; the most NLL there can be is that of the least likely class of any image."""
    nll, brier = negative_log_likelihoods(log_probs, labels), brier_scores(log_probs, labels)
    return {
        "nll": float(nll.mean()),
        "nll_ci95": mean_interval(nll, 0.0, float(-log_probs.min())),
        "brier": float(brier.mean()),
        "brier_ci95": mean_interval(brier, 0.0, 2.0),
    }


def proportion(right: Tensor) -> dict[str, Any]:
    """Return the proportion of images that are right: n, accuracy, Wilson interval; both None for no images."""
    n, successes = len(right), int(right.sum())
    return {"n": n, "accuracy": successes / n if n else None, "ci95": list(wilson_interval(successes, n)) if n else None}


def accuracy_values(
    logits: Logits, labels: Labels, gamma2: float, class_names: tuple[str, ...], temperature: float | None = None
) -> dict[str, Any]:
    """Measure accuracy, NLL and Brier score of ``p(y|x)`` (Eq. 11), overall and by class.

    Args:
        logits: of the images.
        labels: their classes.
        gamma2: the scale of the paper's ``p(y|x)``.
        class_names: all there are.
        temperature: a scale fitted to the labels of other images, at which NLL and Brier score come first; None where there is none.

    Returns:
        The values of an ``eval accuracy`` result; ``confusion[true][predicted]`` counts images.
    """
    predicted, n_classes = logits.argmax(1), len(class_names)
    log_probs = class_log_probs(logits.double(), gamma2)
    right = predicted == labels
    overall = proportion(right)
    calibrated = means_over_images(class_log_probs(logits.double(), temperature), labels) if temperature else {}
    return {
        "accuracy": overall["accuracy"],
        "ci95": overall["ci95"],
        **{f"calibrated_{name}": value for name, value in calibrated.items()},
        **means_over_images(log_probs, labels),
        "per_class": {name: proportion(right[labels == k]) for k, name in enumerate(class_names)},
        "confusion": torch.bincount(labels * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes).tolist(),
    }


def accuracy_protocol(gamma2: float, temperature: float | None) -> dict[str, Any]:
    """The protocol of ``accuracy_values``."""
    return {
        "prediction": "argmax of the logits",
        "probabilities": "softmax of logits / gamma^2 in float64 (Eq. 11); calibrated: of logits / temperature, fitted on validation",
        "gamma2": gamma2,
        "temperature": temperature,
        "intervals": f"95%: Wilson for shares; {OF_MEANS} for nll and brier",
    }
