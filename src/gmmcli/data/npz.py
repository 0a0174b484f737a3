"""NumPy archives in MedMNIST's layout: {train,val,test}_{images,labels}, and optionally class_names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal
from zipfile import ZipInfo

import numpy as np
import torch

from gmmcli.data.arrays import Arrays
from gmmcli.data.cache import cached
from gmmcli.data.dataset import Dataset, HeldOut, Split, check_labels, concatenate, hold_out
from gmmcli.data.mapped import Mapped, in_memory
from gmmcli.data.reading import CLASSES, NAME, reading
from gmmcli.errors import DataError
from gmmcli.progress import image_progress
from gmmcli.types import Labels, RawImages

IMAGES = 10**8
"""Images that a split may have at most."""
LISTED = 20  # names of arrays in an error


@dataclass(frozen=True, kw_only=True)
class Npz:
    """Source table: byte images (image, height, width[, channel]); without val_images a share of train is held out."""

    n_classes: ClassVar[int | None] = None
    kind: Literal["npz"] = "npz"
    path: str = "data/images.npz"
    """The archive; a relative path starts in the directory that training was started from. Images of more than 1 GiB are read from it as
    they are needed; if it is compressed, from a copy in ``$XDG_CACHE_HOME/gmmc`` or ``~/.cache/gmmc``."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation where there are no val_images."""

    def load(self) -> Dataset:
        """Read the archive; DataError names the array that will not do."""
        with self._arrays() as arrays:
            train, test = self._split(arrays, "train"), self._split(arrays, "test")
            names = self._names(arrays, train.labels)
            check_labels(train.labels, len(names), f"{self.path}, train")
            validation = self._split(arrays, "val") if "val_images" in arrays else None
        if validation is None:
            train, validation = hold_out(train, self.validation, self.path)
        return Dataset(self.path, names, train, validation, test)

    def everything(self) -> tuple[Split, tuple[str, ...]]:
        """Read the test images, or all where none are set apart, and the names of the classes."""
        with self._arrays() as arrays:
            parts = ["test"] if "test_images" in arrays else [part for part in ("train", "val") if f"{part}_images" in arrays]
            split = concatenate(*(self._split(arrays, part) for part in parts or ["test"]))
            names = self._names(arrays, split.labels)
        check_labels(split.labels, len(names), self.path)
        return split, names

    @contextmanager
    def _arrays(self) -> Iterator[Arrays]:
        with reading(f"{self.path} cannot be read as an .npz of plain arrays", "save it with numpy.savez, without objects"):
            if not Path(self.path).exists():
                raise DataError(f"no file at {self.path}", "put it there, or set data.source.path to where it is")
            with Arrays(Path(self.path)) as arrays:
                yield arrays

    def _names(self, arrays: Arrays, labels: Labels) -> tuple[str, ...]:
        """The names of the classes, or their numbers as far as there are labels."""
        if "class_names" not in arrays:
            most = int(labels.max()) if len(labels) else 0
            return tuple(map(str, range(min(max(most, 0) + 1, CLASSES))))
        _, shape, dtype, *_ = arrays.header("class_names")
        if prod(shape) > CLASSES or dtype.itemsize > NAME * np.dtype("U1").itemsize:
            raise DataError(
                f"{self.path}: class_names is {dtype} of shape {shape}", f"give at most {CLASSES:,} names of at most {NAME:,} characters"
            )
        return tuple(str(name) for name in arrays["class_names"].reshape(-1))

    def _split(self, arrays: Arrays, part: str) -> Split:
        for name in (f"{part}_images", f"{part}_labels"):
            if name not in arrays:
                raise DataError(f"{self.path} has no array {name!r}", f"it has {', '.join(arrays.names[:LISTED]) or 'none'}")
        _, shape, dtype, *_ = arrays.header(f"{part}_images")
        if dtype != np.uint8 or len(shape) not in (3, 4) or shape[0] > IMAGES:
            raise DataError(
                f"{self.path}: {part}_images is {dtype} of shape {shape}",
                f"give uint8 of shape (image, height, width) or (image, height, width, channel), at most {IMAGES:,} images",
            )
        _, labels_shape, labels_dtype, *_ = arrays.header(f"{part}_labels")
        if labels_dtype.kind not in "iu" or labels_shape not in ((shape[0],), (shape[0], 1)):
            raise DataError(
                f"{self.path}: {part}_labels is {labels_dtype} of shape {labels_shape} for {shape[0]} images", "give one integer an image"
            )
        labels = torch.from_numpy(arrays[f"{part}_labels"].reshape(-1).astype(np.int64))
        return Split(self._images(arrays, f"{part}_images"), labels)

    def _images(self, arrays: Arrays, name: str) -> RawImages | Mapped:
        """Read images; many of them are mapped where they stand, or in the cache if they are compressed."""
        info, shape, *_ = arrays.header(name)
        if info.file_size > in_memory(1):
            mapped = arrays.mapped(name)
            return Mapped.whole(self._cached(arrays, name, info, shape) if mapped is None else mapped)
        images = arrays[name]
        images = images[..., None] if images.ndim == 3 else images
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def _cached(self, arrays: Arrays, name: str, info: ZipInfo, shape: tuple[int, ...]) -> np.ndarray:
        def write(npy: BinaryIO) -> None:
            with image_progress(f"unpacking {name}", shape[0], quiet=False) as progress:
                for piece in arrays.pieces(name):
                    npy.write(piece)
                    progress(npy.tell() * shape[0] // info.file_size)

        return cached(f"{Path(self.path).resolve()} {name}", str(info.CRC), shape, write)
