"""The evaluation of samples: against real images, beside the images their chains start from and beside test images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

import torch

from gmmcli.data.dataset import Split, concatenate, subset
from gmmcli.data.pictures import save_grid
from gmmcli.distributed import once
from gmmcli.errors import RecipeError
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.moments import read_moments, write_moments
from gmmcli.evaluate.samples import Draw, buffer_classes, read_samples, spread
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.features.spaces import Space
from gmmcli.metrics.frechet import Moments
from gmmcli.metrics.generation import MOST, beside_values, distance_values, generation_protocol, most_confident, neighbour_values
from gmmcli.metrics.judge import MOST_JUDGED, Judge, agreement, agreement_values, pixels
from gmmcli.metrics.manifold import memorisation_values, nearest
from gmmcli.metrics.metric import SAMPLE_METRICS, with_metrics
from gmmcli.metrics.outputs import outputs
from gmmcli.progress import ProgressBar, image_progress
from gmmcli.types import Features, Images, RawImages, to_model

ReferenceName = Literal["train", "test", "train+test"]
SHOWN, ROWS = 5, 20  # neighbours in a row of the picture, and rows
ARRAYS = ("samples", "labels", "real", "real_labels")
BESIDE = 8
"""Test images of each class that are kept beside the samples, to be looked at."""
DEFAULT_N = {"buffer": 10_000, "noise": 1_000}


@dataclass(frozen=True)
class Generation:
    """The settings of an evaluation of samples."""

    space: Space
    judge: Judge
    draw: Draw
    n: int | None = None
    """Total number of samples, balanced over the classes. Default: at most 10,000 of the buffer, 1,000 fresh ones."""
    samples: Path | None = None
    """Measure the samples of this file of ``gmmc sample`` instead of drawing any."""
    reference: ReferenceName = "train"
    stats: Path | None = None
    """pytorch-fid's .npz, whose statistics replace the reference images' in the Frechet distance."""
    save_stats: Path | None = None
    """Where to write the reference images' statistics."""
    top_share: float = 1.0
    """Keep only this most confident share of each predicted class, as the paper did."""

    @property
    def words(self) -> list[str]:
        """The settings that differ from the buffer's images in Inception's features against the training images, for a result's name."""
        words = [self.space.name] * (self.space.name != "inception")
        words += [f"samples {self.samples.stem}"] if self.samples else [self.draw.origin] * (self.draw.origin != "buffer")
        words += [f"n{self.n}"] * (self.n is not None) + [self.reference] * (self.reference != "train")
        words += [f"stats {self.stats.stem}"] if self.stats else []
        words += [f"top {self.top_share:g}"] * (self.top_share < 1)
        return words + [f"judge {self.judge.name}"] * bool(self.judge.name)


def generate(subject: Subject, settings: Generation, *, out: Path | None = None, quiet: bool = True) -> Measured:
    """Compare samples with real images: distances, manifold, label agreement, and whether they are copies of training images.

    The same values are given of the images that the chains start from, as ``starts``, and of test images, as ``real``: no chain has
    moved the former, and no samples can be expected to surpass the latter.
    """
    samples, origin = _samples(subject, settings, quiet)
    compared = Comparison(subject, settings, samples)
    values, protocol = compared.values(quiet), compared.protocol(origin)
    if settings.save_stats:
        once(partial(write_moments, compared.reference.own_moments, settings.save_stats))
    rows = _neighbours(samples, compared.train, subject.card.class_names)
    classes = range(min(ROWS, len(subject.card.class_names)))
    real = subject.dataset.test.like(spread(classes, BESIDE * len(classes)), subject.seed)
    return save(
        subject,
        subject.result("eval generate", protocol, values, n=len(samples)) | {"split": settings.reference},
        *settings.words,
        arrays={name: part.numpy() for name, part in zip(ARRAYS, (*samples.batch(), *real.batch()), strict=True)},
        picture=partial(
            save_grid, rows, caption=f"{subject.card.recipe.name}: a sample (first column) and its nearest training images", cell=96
        ),
        out=out,
        warnings=_warnings(settings, len(samples), compared.features.shape[1]),
    )


def _samples(subject: Subject, settings: Generation, quiet: bool) -> tuple[Split, dict[str, Any]]:
    """The samples to measure, and where they are from; RecipeError for fewer than two."""
    if settings.samples:
        read = read_samples(settings.samples, subject.card)
        samples, origin = read.to_split(), read.protocol
    else:
        samples, origin = _drawn(subject, settings.draw, settings.n, quiet)
    if settings.top_share < 1:
        samples = samples.take(most_confident(outputs(subject.model, samples).logits, settings.top_share))
    if len(samples) < 2:
        raise RecipeError(f"cannot measure {len(samples)} sample(s)", "use at least 2; a reliable FID needs 10,000")
    return samples, origin


def _drawn(subject: Subject, draw: Draw, n: int | None, quiet: bool) -> tuple[Split, dict[str, Any]]:
    """Draw as many samples of each class, and of them n at random; without n the default number, or what the buffer holds."""
    classes = range(len(subject.card.class_names))
    each = ceil((n or DEFAULT_N[draw.origin]) / len(classes))
    if n is None and draw.origin == "buffer":
        each = min(each, *map(len, buffer_classes(subject.run, classes)))
    labels = spread(classes, each * len(classes))
    with image_progress("chains", len(labels), quiet) as progress:
        drawn = draw(subject.run, subject.model, labels, progress)
    return drawn.to_split().subset(n, subject.seed), drawn.protocol


@dataclass(frozen=True)
class Reference:
    """Real images to compare with: their features, and the statistics of the Frechet distance."""

    features: Features
    given: Moments | None
    """Statistics that replace those of the features."""

    @cached_property
    def own_moments(self) -> Moments:
        """The statistics of the features."""
        return Moments.of(self.features)

    @property
    def moments(self) -> Moments:
        """The statistics to compare with."""
        return self.given or self.own_moments


@dataclass(frozen=True)
class Comparison:
    """Samples and the real images they are compared with; each method gives one group of values."""

    subject: Subject
    settings: Generation
    samples: Split

    def values(self, quiet: bool) -> dict[str, Any]:
        """All values."""
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "distances": self.distances,
            "neighbours": lambda: neighbour_values(self.features, self.reference.features, self.subject.seed),
            "label agreement": lambda: self.label_agreement,
            "memorisation": self.memorisation,
            "starts": self.of_starts,
            "real images": self.of_real_images,
        }
        values: dict[str, Any] = {}
        with ProgressBar("eval generate", len(parts), quiet, unit="parts") as bar:
            for i, (name, part) in enumerate(parts.items()):
                bar.update(i, name)
                values |= part()
            bar.update(len(parts))
        return with_metrics(values, SAMPLE_METRICS, self.features, self.reference.features, self.subject.seed)

    @cached_property
    def features(self) -> Features:
        """Of the samples."""
        return self.settings.space.embed(self.samples)

    @cached_property
    def reference(self) -> Reference:
        """The reference images; train and validation together are what others call the training set."""
        dataset, stats = self.subject.dataset, self.settings.stats
        splits = {"train": (dataset.train, dataset.validation), "test": (dataset.test,)}
        images = concatenate(*(split for name in self.settings.reference.split("+") for split in splits[name]))
        features = self.settings.space.embed(images)
        return Reference(features, read_moments(stats, features.shape[1]) if stats else None)

    @cached_property
    def real(self) -> tuple[Features, Reference]:
        """As many test images as there are samples, and the reference without them; of a test reference at most half is taken."""
        test, n, known = self.subject.dataset.test, len(self.samples), self.reference.features
        taken = subset(len(test), min(n, len(test) // 2) if self.settings.reference == "test" else n, self.subject.seed)
        if self.settings.reference == "train":
            return self.settings.space.embed(test.take(taken)), self.reference
        left = torch.ones(len(known), dtype=torch.bool)
        left[taken - len(test)] = False  # test images come last
        return known[~left], Reference(known[left], self.reference.given)

    @cached_property
    def starts(self) -> Split | None:
        """As many images that fresh chains start from; None for samples of a file, or a run without chains."""
        if self.settings.samples or not self.subject.run.checkpoint(self.subject.best).has("buffer"):
            return None
        return _drawn(self.subject, Draw("noise", steps=0, seed=self.settings.draw.seed), len(self.samples), quiet=True)[0]

    @cached_property
    def train(self) -> RawImages:
        """The training images among which copies are looked for."""
        return self.subject.dataset.train.subset(MOST, self.subject.seed).batch()[0]

    def distances(self) -> dict[str, Any]:
        """Frechet and kernel distance to the reference, and the inception score."""
        return distance_values(self.settings.space, self.features, self.reference.features, self.reference.moments, self.subject.seed)

    @cached_property
    def label_agreement(self) -> dict[str, Any]:
        """The share of samples, and of test images, whose class the judge names."""
        test = self.subject.dataset.test.subset(MOST_JUDGED, self.subject.seed)
        return agreement_values(self.settings.judge, self.samples, test, self.subject.card.class_names)

    def memorisation(self) -> dict[str, Any]:
        """How near the samples are to training images."""
        samples, test = (pixels(split.subset(MOST, self.subject.seed).batch()[0]) for split in (self.samples, self.subject.dataset.test))
        return {"memorisation": memorisation_values(samples, test, pixels(self.train))}

    def of_starts(self) -> dict[str, Any]:
        """The values of the images that chains start from."""
        if self.starts is None:
            return {}
        judged = self.starts.subset(MOST_JUDGED, self.subject.seed)
        values = self._beside(self.settings.space.embed(self.starts), self.reference)
        return {"starts": values | agreement(self.settings.judge.classes(judged) == judged.labels)}

    def of_real_images(self) -> dict[str, Any]:
        """The values of test images; none where there are fewer than two."""
        if len(self.real[0]) < 2:
            return {}
        agreed = {f"label_agreement{end}": self.label_agreement[f"judge_accuracy{end}"] for end in ("", "_ci95")}
        return {"real": self._beside(*self.real) | agreed}

    def _beside(self, features: Features, reference: Reference) -> dict[str, Any]:
        return beside_values(self.settings.space, features, reference.features, reference.moments, self.subject.seed)

    def protocol(self, origin: dict[str, Any]) -> dict[str, Any]:
        """How the values were computed, of samples from this origin."""
        settings, title = self.settings, self.subject.dataset.title
        top, (real, others) = settings.top_share, self.real
        starts = f"where fresh chains start, seed {settings.draw.seed}; label agreement of at most {MOST_JUDGED:,}"
        return generation_protocol(settings.space, len(self.reference.features)) | {
            "samples": origin,
            "filter": f"the most confident {top:.0%} of each predicted class" if top < 1 else "none",
            "reference": settings.stats.name if settings.stats else f"{title} {settings.reference}",
            "memorisation": f"pixel distances to {len(self.train):,} training images",
            "starts": starts if self.starts else None,
            "real": f"{len(real):,} random {title} test images, against {len(others.features):,} others; label agreement is judge_accuracy",
        }


def _neighbours(samples: Split, train: RawImages, class_names: tuple[str, ...]) -> list[tuple[str, Images]]:
    """One sample of each class, before its nearest training images, as rows of a grid."""
    images, labels = samples.batch()
    first = [int((labels == k).nonzero()[0]) for k in sorted(set(labels.tolist()))][:ROWS]
    near = nearest(pixels(images[first]), pixels(train), SHOWN)[1]
    return [
        (class_names[int(labels[i])], to_model(torch.cat([images[i : i + 1], train[found]]))) for i, found in zip(first, near, strict=True)
    ]


def _warnings(settings: Generation, n: int, dim: int) -> list[str]:
    warnings = []
    if n < dim:
        warnings.append(
            f"{n} samples are few: the Frechet distance increases as n decreases, and with fewer samples than the {dim:,} features of "
            "this space the covariance is singular; compare only at equal n"
        )
    if settings.top_share < 1:
        warnings.append(
            f"only the most confident {settings.top_share:.0%} of the samples were measured, as in the paper; "
            "this is not comparable with unfiltered samples"
        )
    return warnings
