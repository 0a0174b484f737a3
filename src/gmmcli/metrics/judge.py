"""An independent judge of samples: does a classifier that never saw the model recognise the class they were drawn for?"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gmmcli.core.classifier import Classifier
from gmmcli.data.dataset import Split, chunks
from gmmcli.distributed import divided
from gmmcli.metrics.accuracy import proportion
from gmmcli.metrics.outputs import outputs
from gmmcli.types import Labels, RawImages, to_model

MOST = 10_000  # training images: an SVC's time grows with their square
MOST_JUDGED = 2_000  # test images on which it shows its own accuracy


def pixels(images: RawImages) -> np.ndarray:
    """Return model-range pixels, one row an image."""
    rows: np.ndarray = to_model(images).flatten(1).numpy()
    return rows


class Judge(Protocol):
    """Whoever names the class of an image."""

    @property
    def about(self) -> str:
        """What it is, for the protocol."""

    @property
    def name(self) -> str:
        """What it is called in the names of results; empty for the default judge."""

    def classes(self, images: RawImages | Split) -> Labels:
        """Name the class of each image."""


class PixelJudge:
    """scikit-learn's ``SVC(C=10)`` on the pixels of real training images, at most 10,000 of them."""

    name = ""

    def __init__(self, train: Split, seed: int) -> None:
        from sklearn.svm import SVC

        images, labels = train.take(np.random.default_rng(seed).permutation(len(train))[:MOST]).batch()
        self.about = f"SVC(C=10) on the pixels of {len(images):,} real training images"
        self._svc = SVC(C=10).fit(pixels(images), labels.numpy())

    def classes(self, images: RawImages | Split) -> Labels:
        """Name the class of each image."""

        def named(mine: slice) -> tuple[Tensor]:
            return (torch.from_numpy(np.concatenate([self._svc.predict(pixels(part)) for part in chunks(images, MOST, mine)])),)

        return divided(len(images), named)[0]


@dataclass(frozen=True)
class ModelJudge:
    """Another run's classifier."""

    model: Classifier
    about: str
    name: str

    def classes(self, images: RawImages | Split) -> Labels:
        """Name the class of each image."""
        return outputs(self.model, images).logits.argmax(1)


def agreement(right: Tensor) -> dict[str, Any]:
    """Return the share of images that were taken for their class, of shape (image,)."""
    overall = proportion(right)
    return {"label_agreement": overall["accuracy"], "label_agreement_ci95": overall["ci95"]}


def agreement_values(judge: Judge, samples: Split, test: Split, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the share of samples that the judge takes for their class, overall and by class, and its own accuracy on real images."""
    right, labels = judge.classes(samples) == samples.labels, samples.labels
    own = proportion(judge.classes(test) == test.labels)
    return {
        **agreement(right),
        "per_class": {name: proportion(right[labels == k]) for k, name in enumerate(class_names) if bool((labels == k).any())},
        "judge": judge.about,
        "judge_accuracy": own["accuracy"],
        "judge_accuracy_ci95": own["ci95"],
        "judge_n": own["n"],
    }
