"""A run whose decision boundaries are known, to attack."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gmmcli.attacks.attack import Attack
from gmmcli.core.classifier import Classifier
from gmmcli.data.dataset import Dataset, Split
from gmmcli.evaluate.subject import Subject
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run

NAMES = ("ant", "bee", "cow", "dog")
GAPS = (6, 10, 14, 20, 6, 10, 14, 20)  # of bytes between the brightest blocks of an image: half of it is the distance in linf
PGD = Attack("pgd", "margin", steps=4)
EPS = (4 / 255, 6 / 255, 8 / 255)
Toy = Callable[..., Subject]


def split(gaps: tuple[int, ...], labels: list[int]) -> Split:
    """Images brightest in the quarter of their class, by so much, and next brightest in the next."""
    images = torch.full((len(gaps), 64), 51)
    for image, gap, label in zip(images, gaps, labels, strict=True):
        for k, brightness in (((label + 1) % 4, 128), (label, 128 + gap)):
            image[16 * k : 16 * (k + 1)] = brightness
    return Split(images.byte().view(-1, 1, 8, 8), torch.tensor(labels))


@pytest.fixture
def toy(tiny_recipe: Recipe, tmp_path: Path) -> Toy:
    """A run whose logits are the brightness of each quarter, times a scale, and images at known distances from the boundary."""

    def made(scale: float = 1.0, name: str = "toy", n_classes: int = 4, shift: int = 0) -> Subject:
        head = nn.Linear(64, n_classes)
        head.weight.data.copy_(scale * torch.eye(4).repeat_interleave(16, 1)[:n_classes])
        head.bias.data.zero_()
        model = Classifier(nn.Flatten(), head)
        model.gamma2 = 1.0
        run = Run(tmp_path / name)
        run.path.mkdir()
        images, labels = split(GAPS, [0, 1, 2, 3, 2, 3, 0, 1]).batch()
        test = Split(images, (labels + shift) % 4)
        if n_classes == 3:
            test = test.take(np.flatnonzero(test.labels < 3))
        card = ModelCard(tiny_recipe, NAMES[:n_classes], (1, 8, 8), 1.0)
        return Subject(run, 7, card, model, Dataset("blocks", NAMES[:n_classes], test, test, test), "test")

    return made


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def saved(subject: Subject, name: str) -> dict[str, np.ndarray]:
    return arrays(max((subject.run.path / "results").glob(f"{name}*.npz"), key=lambda path: path.stat().st_mtime_ns))


def fallen(eps: float) -> int:
    """How many of the images are no further from the boundary than this."""
    return sum(gap / 2 <= 255 * eps for gap in GAPS)
