"""Why a model judges a picture as it does: the training images nearest to it, the energies of its classes, and what it would change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmcli.core.chains import visit
from gmmcli.core.classifier import frozen
from gmmcli.core.energy import squared_distances
from gmmcli.core.samplers import FixedLength
from gmmcli.core.targets import Conditional
from gmmcli.data.dataset import Split
from gmmcli.data.decoding import decode
from gmmcli.data.pictures import save_grid
from gmmcli.data.tree import images_below
from gmmcli.evaluate.classify import Judgement, Verdict
from gmmcli.metrics.outputs import outputs
from gmmcli.progress import image_progress
from gmmcli.rng import stream
from gmmcli.types import Features, Images, RawImages, to_bytes, to_model

NEAREST = 5
"""Training images that are shown."""
CHUNK = 1000
"""Training images that are in memory at a time."""
STEP = 0.005
"""Length of a step towards a class: the root mean square of the pixels' changes, in the model range."""
STEPS = 200
"""After which a chain is given up."""
PROTOCOL = {
    "nearest": f"{NEAREST} of all training images, in the model's features",
    "step_rms": STEP,
    "steps": STEPS,
    "l2": "pixels in [0, 1]",
}
"""How explanations come about."""


@dataclass(frozen=True)
class Neighbour:
    """A training image, and how near it is."""

    index: int
    """Its position in ``run.dataset().train``."""
    label: str
    squared_distance: float
    """``||phi(x) - phi(x')||^2``, in the features of the model."""
    file: str | None
    """Of images in a folder."""

    def __str__(self) -> str:
        return f"{self.file or f'image {self.index}'}, class {self.label}, squared distance {self.squared_distance:.3g}"


@dataclass(frozen=True)
class ClassEnergy:
    """How far a picture is from a class."""

    label: str
    energy: float
    """``E(x, y) = -logits[y]``."""
    squared_distance: float | None
    """``||phi(x) - mu_y||^2``; None for a head without means."""

    def __str__(self) -> str:
        return f"{self.label}: energy {self.energy:.3g}" + (
            "" if self.squared_distance is None else f", squared distance to its mean {self.squared_distance:.3g}"
        )


@dataclass(frozen=True)
class Counterfactual:
    """How a picture must change for the model to call it a known one of a class. Everything is of the picture as it is saved, in bytes."""

    towards: str
    reached: bool
    """Whether it does then; otherwise this is where ``STEPS`` steps led."""
    steps: int
    pixels: int
    """How many of them differ."""
    l2: float
    """Norm of the change, on a scale of 0 to 1."""
    of: int
    """Pixels of the picture."""
    log_density: float

    def __str__(self) -> str:
        end = f"a known {self.towards}" if self.reached else f"no known {self.towards} yet"
        return f"{self.pixels} of {self.of} pixels, L2 {self.l2:.3g}, {self.steps} step{'s' * (self.steps != 1)}: {end}"


@dataclass(frozen=True)
class Explanation:
    """What stands behind a verdict."""

    nearest: list[Neighbour]
    classes: list[ClassEnergy]
    """The two best."""
    counterfactual: Counterfactual | None
    """For a picture that is unknown, or wrong."""

    def lines(self) -> dict[str, list[str]]:
        """In words, for a terminal."""
        change = {"what would change": [str(self.counterfactual)]} if self.counterfactual else {}
        return {"nearest training images": [*map(str, self.nearest)], "best classes": [*map(str, self.classes)]} | change


@dataclass(frozen=True)
class Explained:
    """An explanation and the pictures that go with it."""

    explanation: Explanation
    changed: RawImages | None
    """Where the chain arrived, shape (1, channel, height, width)."""
    nearest: RawImages
    """Shape (neighbour, channel, height, width)."""


def explain(
    judge: Judgement, images: RawImages, verdicts: Sequence[Verdict], label: str | None = None, quiet: bool = True
) -> list[Explained]:
    """Explain verdicts.

    Args:
        judge: whose they are.
        images: byte images, shape (n, channel, height, width), of the size that the model takes.
        verdicts: what the judge said of each.
        label: the class that all of them have; unknown by default.
        quiet: without progress.

    Raises:
        DataError: the run's training images are missing.
    """
    subject = judge.subject
    names, train = subject.card.class_names, subject.dataset.train
    said = outputs(subject.model, images)
    with image_progress("training images", len(train), quiet) as progress:
        squares, positions = nearest(lambda part: outputs(subject.model, part).features, train, said.features, NEAREST, progress)
    explained = []
    for i, verdict in enumerate(verdicts):
        near, labels = train.batch(positions[i])
        found = [names[k] for k in labels.tolist()]
        files = files_of(subject.run.source, near, found) if not train.mapped else [None] * len(found)
        neighbours = [Neighbour(*one) for one in zip(positions[i].tolist(), found, squares[i].tolist(), files, strict=True)]
        changed, counterfactual = None, None
        if not verdict.known or label not in (None, verdict.label):
            changed, counterfactual = towards(judge, images[i : i + 1], label or verdict.label)
        explained.append(
            Explained(Explanation(neighbours, _best(judge, said.features[i : i + 1], said.logits[i]), counterfactual), changed, near)
        )
    return explained


def nearest(
    features: Callable[[RawImages], Features], train: Split, queries: Features, k: int, progress: Callable[[int], None] = lambda _: None
) -> tuple[Tensor, Tensor]:
    """Return the squared distances to each query's k nearest images and their positions, shapes (query, k); of equal ones the first.

    Args:
        features: of byte images.
        train: where to search; at most ``CHUNK`` of its images are in memory.
        queries: features, shape (query, feature).
        k: how many.
        progress: told how many images are done.
    """
    squares = torch.empty(len(queries), 0, dtype=torch.float64)
    positions = torch.empty(len(queries), 0, dtype=torch.int64)
    done = 0
    for part in train.chunks(CHUNK):
        found = torch.cdist(queries.double(), features(part).double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        squares = torch.cat([squares, found], 1)
        positions = torch.cat([positions, torch.arange(done, done + len(part)).expand(len(queries), -1)], 1)
        squares, order = squares.sort(dim=1, stable=True)
        squares, positions = squares[:, :k], positions.gather(1, order[:, :k])
        done += len(part)
        progress(done)
    return squares, positions


def files_of(source: Any, images: RawImages, labels: Sequence[str]) -> list[str | None]:
    """Return the files of training images, found by their content; None for those of a source without files, or of a .zip."""
    if not hasattr(source, "files") or not Path(source.path).is_dir():
        return [None] * len(images)
    sought = images.permute(0, 2, 3, 1).numpy()
    found: list[str | None] = [None] * len(images)
    for file in images_below(Path(source.path)):
        path = Path(str(file))
        wanted = [i for i, label in enumerate(labels) if found[i] is None and label == path.parent.name]
        if wanted:
            pixels = decode(path, source.size, source.channels)
            for i in wanted:
                if np.array_equal(pixels, sought[i]):
                    found[i] = str(path)
        if None not in found:
            break
    return found


def _best(judge: Judgement, features: Features, logits: Tensor) -> list[ClassEnergy]:
    """The two classes of least energy."""
    model, names = judge.subject.model, judge.subject.card.class_names
    squares = squared_distances(features, model.means.detach().cpu())[0].tolist() if model.has_means else [None] * len(names)
    return [ClassEnergy(names[k], -float(logits[k]), squares[k]) for k in logits.topk(2).indices.tolist()]


def towards(judge: Judgement, image: RawImages, label: str) -> tuple[RawImages, Counterfactual]:
    """Lead a picture to a class: steps of one length down ``E(x, y)``, until the model calls it a known one of that class.

    Args:
        judge: the model and its threshold.
        image: the picture, shape (1, channel, height, width).
        label: the class.

    Returns:
        Where the chain arrived, on the cpu, and how far it went.
    """
    subject = judge.subject
    k = subject.card.class_names.index(label)
    labels, generator = torch.tensor([k], device=subject.device), stream(subject.device, "explain")
    sampler = FixedLength(n_steps=1, step_size=STEP * image.numel() ** 0.5)
    x: Images = to_model(image.to(subject.device))
    for steps in range(STEPS + 1):
        picture = to_bytes(x)
        with frozen(subject.model), torch.no_grad():
            (verdict,) = judge.of(subject.model(to_model(picture)).cpu())
        reached = verdict.known and verdict.label == label
        if reached or steps == STEPS:
            break
        x, _ = visit(subject.model, Conditional(), sampler, labels, x, generator)
    difference = picture.cpu().float() - image.cpu().float()
    moved = (difference != 0).any(1)
    l2 = float(difference.norm()) / 255
    return picture.cpu(), Counterfactual(label, reached, steps, int(moved.sum()), l2, moved.numel(), verdict.log_density)


def draw(image: RawImages, verdict: Verdict, explained: Explained, path: Path) -> None:
    """Write a picture: the image; the change, enlarged, and where it led; and the nearest training images."""
    rows = [(f"given: {verdict.label}, {verdict.probability:.0%}, {'known' if verdict.known else 'unknown'}", to_model(image))]
    if explained.changed is not None and (counterfactual := explained.explanation.counterfactual):
        change = (explained.changed.float() - image.float()) / 255
        largest = float(change.abs().max()) or 1.0
        rows.append((f"change, {1 / largest:.3g} times", change / largest))
        rows.append((f"{'known' if counterfactual.reached else 'towards'} {counterfactual.towards}", to_model(explained.changed)))
    for i, neighbour in enumerate(explained.explanation.nearest):
        rows.append((f"near: {neighbour.label}, {neighbour.squared_distance:.3g}", to_model(explained.nearest[i : i + 1])))
    save_grid(rows, path, cell=64)
