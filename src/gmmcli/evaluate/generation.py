"""The evaluation of samples, whole: drawn or read, measured, saved and pictured."""

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gmmcli.data.dataset import Dataset
from gmmcli.data.npz import UNREADABLE
from gmmcli.data.pictures import save_grid
from gmmcli.errors import DataError, RecipeError
from gmmcli.evaluate.measured import Measured
from gmmcli.evaluate.moments import read_moments, write_moments
from gmmcli.evaluate.samples import Draw, Samples, buffer_classes
from gmmcli.evaluate.subject import Subject, chosen
from gmmcli.metrics.features.spaces import Space
from gmmcli.metrics.frechet import Moments
from gmmcli.metrics.generation import MOST, beside_values, distance_values, generation_protocol, most_confident, neighbour_values
from gmmcli.metrics.judge import MOST_JUDGED, Judge, agreement, agreement_values, pixels
from gmmcli.metrics.manifold import memorisation_values, nearest
from gmmcli.metrics.metric import SAMPLE_METRICS, with_metrics
from gmmcli.metrics.outputs import outputs
from gmmcli.progress import ProgressBar, image_progress
from gmmcli.types import Features, RawImages, to_bytes, to_model

Reference = Literal["train", "test", "train+test"]
SHOWN, ROWS = 5, 20  # neighbours in a row of the picture, and rows
DEFAULT_N = {"buffer": 10_000, "noise": 1_000}


@dataclass(frozen=True)
class Generation:
    """What is asked about samples."""

    space: Space
    judge: Judge
    draw: Draw
    n: int | None = None
    """Samples in all, as many of each class; by default 10,000 from the buffer or what it holds, 1,000 fresh ones."""
    samples: Path | None = None
    """Judge these, an .npz of ``gmmc sample``, instead of drawing any."""
    reference: Reference = "train"
    stats: Path | None = None
    """Reference statistics for the Frechet distance, pytorch-fid's .npz, instead of the reference images'."""
    save_stats: Path | None = None
    """Where to write the reference images' statistics."""
    top_share: float = 1.0
    """Keep only so large a share of each predicted class, the most confident, as the paper did."""

    @property
    def departures(self) -> list[str]:
        """In what it departs from the buffer's images, in Inception's features, against the training images."""
        words = [self.space.name] * (self.space.name != "inception")
        words += [f"samples {self.samples.stem}"] if self.samples else [self.draw.origin] * (self.draw.origin != "buffer")
        words += [f"n{self.n}"] * (self.n is not None) + [self.reference] * (self.reference != "train")
        words += [f"stats {self.stats.stem}"] if self.stats else []
        return words + [f"top {self.top_share:g}"] * (self.top_share < 1)


def generate(subject: Subject, asked: Generation, *, out: Path | None = None, quiet: bool = True) -> Measured:
    """Samples against real images: distances, manifold, label agreement, and whether they are copies of training images.

    Beside the samples' figures stand those of where chains start, as ``starts``, and of test images, as ``real``: what no chain has moved,
    and what no samples can be expected to surpass.
    """
    space, dataset = asked.space, subject.dataset
    images, labels, how = _samples(subject, asked, quiet)
    raw = to_bytes(images)
    if asked.top_share < 1:
        kept = most_confident(outputs(subject.model, raw).logits, asked.top_share)
        raw, labels = raw[kept], labels[kept]
    if len(raw) < 2:
        raise RecipeError(f"{len(raw)} sample is too few to measure", "draw two at least; a trustworthy FID wants 10,000")
    starts = _starts(subject, asked, len(raw))
    reference = _reference(dataset, asked.reference)
    judged, compared = (dataset.test.take(chosen(len(dataset.test.labels), most, subject.seed).numpy()) for most in (MOST_JUDGED, MOST))
    train = dataset.train.images[chosen(len(dataset.train.images), MOST, subject.seed)]
    some = chosen(len(raw), MOST, subject.seed)
    with ProgressBar("eval generate", 7, quiet, unit="parts") as bar:
        bar.update(0, "features")
        embedded, known = space.embed(raw), space.embed(reference)
        given = read_moments(asked.stats, embedded.shape[1]) if asked.stats else None
        moments = Moments.of(known)
        if asked.save_stats:
            write_moments(moments, asked.save_stats)
        bar.update(1, "distances")
        values: dict[str, Any] = distance_values(space, embedded, known, given or moments, subject.seed)
        bar.update(2, "neighbours")
        values |= neighbour_values(embedded, known, subject.seed)
        values = with_metrics(values, SAMPLE_METRICS, embedded, known, subject.seed)
        bar.update(3, "label agreement")
        values |= agreement_values(asked.judge, raw, labels, judged, subject.card.class_names)
        bar.update(4, "memorisation")
        values["memorisation"] = memorisation_values(pixels(raw[some]), pixels(compared.images), pixels(train))
        if starts:
            bar.update(5, "starts")
            begun, few = to_bytes(starts.images), chosen(len(raw), MOST_JUDGED, subject.seed)
            right = asked.judge.classes(begun[few]) == starts.labels[few]
            values["starts"] = beside_values(space, space.embed(begun), known, given or moments, subject.seed) | agreement(right)
        bar.update(6, "real images")
        real, others = _real(subject, asked, known, len(raw))
        if len(real) > 1:
            rest = given or (moments if others is known else Moments.of(others))
            values["real"] = beside_values(space, real, others, rest, subject.seed)
            values["real"] |= {"label_agreement": values["judge_accuracy"], "label_agreement_ci95": values["judge_accuracy_ci95"]}
        bar.update(7)
    protocol = generation_protocol(space, len(reference)) | {
        "samples": how,
        "filter": f"the most confident {asked.top_share:.0%} of each predicted class" if asked.top_share < 1 else "none",
        "reference": asked.stats.name if asked.stats else f"{dataset.title} {asked.reference}",
        "memorisation": f"pixel distances to {len(train):,} training images",
        "starts": f"where fresh chains start, seed {asked.draw.seed}; label agreement of at most {MOST_JUDGED:,}" if starts else None,
        "real": f"{len(real):,} random {dataset.title} test images, against {len(others):,} others; label agreement is judge_accuracy",
    }
    result = subject.result("eval generate", protocol, values, n=len(raw)) | {"split": asked.reference}
    stem = subject.run.save_result(
        result, subject.name("eval generate", *asked.departures), samples=raw.numpy(), labels=labels.numpy()
    ).stem
    picture = out or subject.run.path / "figures" / f"{stem}-neighbours.png"
    _neighbours(raw, labels, train, subject, picture)
    return Measured(result, [picture], _warnings(len(raw), embedded.shape[1], asked))


def _warnings(n: int, dim: int, asked: Generation) -> list[str]:
    warnings = []
    if n < dim:
        warnings.append(
            f"{n} samples are few: the Frechet distance grows as n falls, and below the {dim:,} features of this space the covariance "
            "is singular; compare at equal n only"
        )
    if asked.top_share < 1:
        warnings.append(
            f"only the most confident {asked.top_share:.0%} of the samples were measured, as the paper did; compare with nobody else"
        )
    return warnings


def _reference(dataset: Dataset, which: Reference) -> RawImages:
    """The real images to compare with; train and validation together are what others call the training set."""
    train = torch.cat([dataset.train.images, dataset.validation.images])
    return {"train": train, "test": dataset.test.images, "train+test": torch.cat([train, dataset.test.images])}[which]


def _real(subject: Subject, asked: Generation, known: Features, n: int) -> tuple[Features, Features]:
    """Return the features of n test images, of fewer where there are fewer, and the reference's without them.

    Where the reference is the test images, half of them at most are taken from it.
    """
    test = subject.dataset.test.images
    taken = chosen(len(test), min(n, len(test) // 2) if asked.reference == "test" else n, subject.seed)
    if asked.reference == "train":
        return asked.space.embed(test[taken]), known
    left = torch.ones(len(known), dtype=torch.bool)
    left[taken - len(test)] = False  # test images come last
    return known[~left], known[left]


def _starts(subject: Subject, asked: Generation, n: int) -> Samples | None:
    """The n images, as many of each class, that fresh chains start from; None where samples were given, or a run has no chains."""
    if asked.samples or not subject.run.checkpoint(subject.best).has("buffer"):
        return None
    return _samples(subject, replace(asked, draw=Draw("noise", steps=0, seed=asked.draw.seed), n=n), quiet=True)


def _samples(subject: Subject, asked: Generation, quiet: bool) -> Samples:
    if asked.samples:
        return _read(asked.samples, subject)
    n_classes, origin = len(subject.card.class_names), asked.draw.origin
    n = asked.n or DEFAULT_N[origin]
    each = ceil(n / n_classes)
    if origin == "buffer" and asked.n is None:
        each = min(each, *map(len, buffer_classes(subject.run, range(n_classes))))
    with image_progress("chains", each * n_classes, quiet) as at:
        drawn = asked.draw(subject.run, range(n_classes), each, subject.best, subject.device, at)
    kept = chosen(len(drawn.labels), asked.n, subject.seed)
    return Samples(drawn.images[kept], drawn.labels[kept], drawn.protocol)


def _read(path: Path, subject: Subject) -> Samples:
    """Samples that `gmmc sample --format npz` wrote."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = torch.from_numpy(archive["images"]), torch.from_numpy(archive["labels"]).long()
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as samples ({error})", "write them with gmmc sample --format npz") from error
    channels, height, width = subject.card.image_shape
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (height, width, channels) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path} has images of shape {tuple(images.shape)} and labels of {tuple(labels.shape)}, "
            f"run {subject.run.id} makes bytes of (n, {height}, {width}, {channels})",
            "give samples of this run, or of one on the same data",
        )
    n_classes = len(subject.card.class_names)
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= n_classes):
        raise DataError(f"{path} has a label outside 0..{n_classes - 1}", "give samples of a run on the same classes")
    return Samples(to_model(images.permute(0, 3, 1, 2)), labels, {"from": str(path)})


def _neighbours(samples: RawImages, labels: torch.Tensor, train: RawImages, subject: Subject, path: Path) -> None:
    """Draw one sample a class, each before its nearest training images."""
    first = [int((labels == k).nonzero()[0]) for k in range(len(subject.card.class_names)) if bool((labels == k).any())][:ROWS]
    near = nearest(pixels(samples[first]), pixels(train), SHOWN)[1]
    names = subject.card.class_names
    rows = [(names[int(labels[i])], to_model(torch.cat([samples[i : i + 1], train[found]]))) for i, found in zip(first, near, strict=True)]
    save_grid(rows, path, f"{subject.card.recipe.name}: a sample (first column) and its nearest training images", cell=96)
