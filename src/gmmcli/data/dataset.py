"""The one form every dataset takes in memory, and the checks it must pass to get there."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Gt, Lt
from torch import Tensor

from gmmcli.data.mapped import Mapped, in_memory
from gmmcli.errors import DataError
from gmmcli.rng import stream
from gmmcli.types import Labels, RawImages

SplitName = Literal["train", "validation", "test"]
HeldOut = Annotated[float, Gt(0), Lt(1)]
"""Share of the training images, stratified by class, that training never sees."""
ALL = slice(None)
LISTED = 10  # classes in an error


@dataclass(frozen=True, eq=False)
class Split:
    """Byte images (image, channel, height, width) and their labels.

    Outside ``data/`` images are read by ``batch`` and ``chunks`` alone, so that they need not all be in memory.
    """

    images: RawImages | Mapped
    labels: Labels

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def mapped(self) -> bool:
        """Whether the images stay in a file."""
        return isinstance(self.images, Mapped)

    def batch(self, indices: Tensor | slice = ALL) -> tuple[RawImages, Labels]:
        """Read the images at these positions, in this order, and their labels; all of them by default."""
        return self.images[indices], self.labels[indices]

    def chunks(self, size: int) -> Iterator[RawImages]:
        """Read all images in their order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size]

    def take(self, indices: Tensor | np.ndarray) -> "Split":
        """Select the images at these positions, in ascending order; mapped ones are not read."""
        return self.at(torch.as_tensor(indices).sort().values)

    def at(self, rows: Tensor) -> "Split":
        """Select the images at these positions, in the order given; mapped ones are not read."""
        return Split(self.images.select(rows) if isinstance(self.images, Mapped) else self.images[rows], self.labels[rows])

    def subset(self, n: int | None, seed: int) -> "Split":
        """Select at most ``n`` images, drawn at random by ``seed`` (function ``subset``); all where ``n`` is None."""
        return self if n is None or n >= len(self) else self.take(subset(len(self), n, seed))

    def like(self, labels: Labels, seed: int) -> "Split":
        """Select as many images of each class as ``labels`` has of it, class by class, drawn by ``seed``; all where there are fewer."""
        rows = []
        for k, n in sorted(Counter(labels.tolist()).items()):
            of_class = torch.nonzero(self.labels.cpu() == k).flatten()
            rows.append(of_class[subset(len(of_class), n, seed)])
        return self.at(torch.cat(rows))

    def some(self, seed: int) -> "Split":
        """Select images that fit in memory (``IN_MEMORY``): all but of large splits, of those as many of each class, drawn by ``seed``."""
        most = in_memory(prod(self.images.shape[1:]))
        if len(self) <= most:
            return self
        labels = self.labels.cpu()
        order = torch.randperm(len(self), generator=stream("cpu", seed, "subset"))
        order = order[labels[order].argsort(stable=True)]  # class by class, at random within
        counts = labels.bincount()
        place = torch.arange(len(self)) - (counts.cumsum(0) - counts)[labels[order]]
        return self.take(order[place < max(1, most // len(counts))])

    def to(self, device: torch.device) -> "Split":
        """Return the same split on a device; images that are mapped go there as they are read."""
        return Split(self.images.to(device), self.labels.to(device))


def concatenate(*splits: Split) -> Split:
    """Join splits, one after the other; of one alone, or of parts of one file, nothing is read."""
    if len(splits) == 1:
        return splits[0]
    images, labels = [split.images for split in splits], torch.cat([split.labels for split in splits])
    if mapped := Mapped.joined(images):
        return Split(mapped, labels)
    return Split(torch.cat([split.batch()[0] for split in splits]), labels)


def chunks(images: RawImages | Split, size: int, within: slice = ALL) -> Iterator[RawImages]:
    """Yield the images of a split or of a tensor within a slice of positions, in their order, at most ``size`` at a time."""
    start, stop, _ = within.indices(len(images))
    for first in range(start, max(stop, start + 1), size):  # of no images one empty batch, which has their shape
        part = slice(first, min(first + size, stop))
        yield images.batch(part)[0] if isinstance(images, Split) else images[part]


def subset(total: int, n: int | None, seed: int) -> Tensor:
    """Return the positions of at most ``n`` of ``total`` images, drawn at random by ``seed``, in ascending order."""
    if n is None or n >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=stream("cpu", seed, "subset"))[:n].sort().values


@dataclass(frozen=True)
class Dataset:
    """Three splits that share no image, and the names of the classes."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def title(self) -> str:
        """What it is called in results and pictures: of a path its last part."""
        return Path(self.name).name

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of every image."""
        return cast(tuple[int, int, int], tuple(self.train.images.shape[1:]))

    def split(self, name: SplitName) -> Split:
        """The split of this name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def numbered(self, names: tuple[str, ...]) -> "Dataset":
        """The same images, with labels that number these classes, which its own are among."""
        if names == self.class_names:
            return self
        numbers = torch.tensor([names.index(name) for name in self.class_names])
        splits = (Split(split.images, numbers[split.labels]) for split in (self.train, self.validation, self.test))
        return Dataset(self.name, names, *splits)

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            self._check(name, self.split(name))

    def check_trainable(self) -> None:
        """Raise DataError where a classifier cannot learn from this: fewer than two classes, or one without images."""
        if self.n_classes < 2:
            raise DataError(f"{self.name} has one class only, and a classifier needs two", "add the images of a second class")
        counts = torch.bincount(self.train.labels, minlength=self.n_classes)
        if empty := [self.class_names[k] for k in range(self.n_classes) if not counts[k]]:
            more = f" and {len(empty) - LISTED:,} others" if len(empty) > LISTED else ""
            raise DataError(
                f"{self.name}: no training image of class {', '.join(map(repr, empty[:LISTED]))}{more}",
                "add images of it, or leave the class out",
            )

    def _check(self, split: str, data: Split) -> None:
        where = f"{self.name}, {split}"
        images, labels = data.images, data.labels
        if not len(images):
            raise DataError(f"{where}: no images", "every split needs some")
        if len(images) != len(labels):
            raise DataError(f"{where}: {len(images)} images but {len(labels)} labels", "give one label an image")
        if images.shape[1] not in (1, 3):
            raise DataError(f"{where}: images have {images.shape[1]} channels", "convert them to 1 (grey) or 3 (RGB)")
        if tuple(images.shape[1:]) != self.shape:
            raise DataError(f"{where}: images are {_size(images)}, those of train {_size(self.train.images)}", "bring all to one size")
        if images.shape[2] != images.shape[3] or images.shape[2] < 8:
            raise DataError(f"{where}: images are {_size(images)}", "make them square, 8 x 8 or larger")
        check_labels(labels, self.n_classes, where)


def check_labels(labels: Labels, n_classes: int, where: str) -> None:
    """Raise DataError, naming the first label that is not one of 0..n_classes - 1."""
    bad = torch.nonzero((labels < 0) | (labels >= n_classes))
    if len(bad):
        at = int(bad[0])
        raise DataError(
            f"{where}: label {int(labels[at])} of image {at} is outside 0..{n_classes - 1}",
            "number the classes from 0, or name them all in class_names",
        )


def _size(images: RawImages | Mapped) -> str:
    return f"{images.shape[2]} x {images.shape[3]} x {images.shape[1]}"


def hold_out(split: Split, share: float, name: str) -> tuple[Split, Split]:
    """Divide a split in two, stratified by class and always the same way; the second part has ``share`` of it."""
    from sklearn.model_selection import train_test_split  # two seconds that most commands can do without

    lonely = torch.nonzero(torch.bincount(split.labels) == 1).flatten().tolist()
    if lonely:
        at = int(torch.nonzero(split.labels == lonely[0])[0])
        raise DataError(
            f"{name}: image {at} is the only one with label {lonely[0]}, and one is needed to train on and one to hold out",
            "mend its label, or give the class more images",
        )
    positions = np.arange(len(split.labels))
    try:
        kept, held = train_test_split(positions, test_size=round(share * len(positions)), stratify=split.labels.numpy(), random_state=0)
    except ValueError as error:
        raise DataError(
            f"{name}: cannot hold out a share of {share} of {len(positions)} images, class by class ({error})",
            "give every class more images, or set data.source.validation larger",
        ) from error
    return split.take(kept), split.take(held)
