"""Accuracy with its interval."""

from math import sqrt
from typing import Any

from gmmcli.core.classifier import Classifier, predict
from gmmcli.data.dataset import Dataset, SplitName

Z95 = 1.959963984540054  # of the standard normal


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share (Wilson 1927): honest near 0 and 1, where the normal one is not."""
    share, z2 = successes / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_result(model: Classifier, dataset: Dataset, split: SplitName = "test") -> dict[str, Any]:
    """Measure accuracy on a split; returns the dataset, split, n, protocol and values of a result object."""
    images, labels = dataset.split(split).to(next(model.parameters()).device)
    correct = int((predict(model, images).argmax(1) == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    return {
        "dataset": dataset.name,
        "split": split,
        "n": len(labels),
        "protocol": {"interval": "Wilson 95%", "prediction": "argmax of the logits"},
        "values": {"accuracy": correct / len(labels), "ci95": [low, high]},
    }
