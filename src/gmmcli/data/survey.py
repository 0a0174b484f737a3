"""What there is to train on: how many images of which classes, how large, grey or not; of a folder without reading it all."""

import dataclasses
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from gmmcli.data.dataset import Dataset, Split, hold_out
from gmmcli.data.decoding import decode, each, is_picture
from gmmcli.data.downloaded import blank
from gmmcli.data.folder import PUT_SOME, Folder
from gmmcli.data.remote import published
from gmmcli.data.sources import Source
from gmmcli.data.tree import Tree
from gmmcli.errors import DataError

LOOKED_AT = 24
"""Pictures of a folder that are read to learn how large they are, and whether they have colours."""
GREY = 4.0
"""Levels, of 255, by which the channels of a grey picture differ at most on average: JPEG does not keep them equal."""
SHARES = (0.1, 0.2, 0.3)
"""Of the images, to hold out: the first by which every split gets images of all classes."""


@dataclass(frozen=True)
class Survey:
    """What a dataset holds."""

    source: Source
    """Whose share of validation is one that its images can be divided by."""
    class_names: tuple[str, ...]
    n_train: int
    """Images to train on, after others were held out."""
    channels: int
    side: int
    """Pixels: of a folder's pictures the shorter side, the median of those that were looked at."""
    n_unreadable: int = 0
    """Files of a folder that are not counted: they do not begin as a picture does, or were looked at and are damaged."""

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def resized(self) -> bool:
        """Whether the source makes its images any size, as a folder does."""
        return hasattr(self.source, "size")

    @property
    def characters(self) -> bool:
        """Whether the classes are called by single characters, as digits and letters are: mirrored, they are others."""
        return all(len(name) == 1 for name in self.class_names)


def survey(source: Source) -> Survey:
    """Look at the images of a source; of those that would have to be downloaded first the numbers and the size are known.

    Raises:
        DataError: there are none, they are broken, or too few to hold some out.
    """
    place: Any = source
    if hasattr(source, "files"):
        return _of_folder(place)
    files = published(place)
    absent = files is not None and files.absent(Path(place.root))
    dataset, found = (blank(place), source) if absent else _loaded(place)
    dataset.check_trainable()
    return Survey(found, dataset.class_names, len(dataset.train), dataset.shape[0], dataset.shape[1])


def _loaded(source: Any) -> tuple[Dataset, Source]:
    """Load a source, of one that can be divided with the first share that does."""
    if hasattr(source, "validation"):
        for share in SHARES[:-1]:
            with suppress(DataError):
                tried = dataclasses.replace(source, validation=share)
                return tried.load(), tried
        source = dataclasses.replace(source, validation=SHARES[-1])
    return source.load(), source


def _of_folder(folder: Folder) -> Survey:
    with folder.files() as (classes, n_held_out):
        named = [(name, file) for name, files in classes.items() for file in files]
        sound = [one for one, good in zip(named, each(is_picture, [file for _, file in named]), strict=True) if good]
        some = [sound[i] for i in np.linspace(0, len(sound) - 1, min(LOOKED_AT, len(sound))).astype(int)]
        looks = [*each(_looked_at, [file for _, file in some])]
        damaged = [name for (name, _), look in zip(some, looks, strict=True) if look is None]
        counts = Counter(name for name, _ in sound)
        counts.subtract(damaged)
        if empty := [name for name in classes if not counts[name]]:
            raise DataError(f"{folder.path}: no image of class {empty[0]!r}", f"{PUT_SOME}, or remove the folder")
        if len(classes) < 2:
            raise DataError(f"{folder.path} has one class only, and a classifier needs two", "add a folder with images of a second class")
        share, n_train = _divided([counts[name] for name in classes], n_held_out, folder.path)
    sides, spreads = zip(*filter(None, looks), strict=True)
    channels = 1 if max(spreads) < GREY else 3
    divided, n_unreadable = dataclasses.replace(folder, validation=share), len(named) - counts.total()
    return Survey(divided, tuple(classes), n_train, channels, int(median(sides)), n_unreadable)


def _looked_at(file: Tree) -> tuple[int, float] | None:
    """The shorter side of a picture, and by how much its channels differ on average; None where it is damaged."""
    try:
        pixels = decode(file, 0, 3)
    except DataError:
        return None
    spread: float = np.ptp(pixels[::4, ::4].astype(np.int16), axis=2).mean()
    return min(pixels.shape[:2]), spread


def _divided(counts: list[int], n_held_out: int, name: str) -> tuple[float, int]:
    """The first share by which images, so many of each class, can be divided as they will be, and how many are left to train on."""
    for share in SHARES:
        left = Split(
            torch.empty(sum(counts), 1, 1, 1, dtype=torch.uint8), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        )
        try:
            for _ in range(n_held_out):
                left, _ = hold_out(left, share, name)
        except DataError as error:
            refused = error
        else:
            return share, len(left)
    raise DataError(refused.message, "give every class at least five images")
