"""MNIST, CIFAR and SVHN, downloaded and verified by torchvision."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from gmmcli.data.dataset import Dataset, HeldOut, Split, concatenate, hold_out, missing
from gmmcli.errors import DataError
from gmmcli.vision import torchvision

UNREADABLE = (OSError, RuntimeError, ValueError, AssertionError, EOFError)  # torchvision's, for what is absent or cut short
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _fetched(name: str, root: Path, files: dict[str, int], read: Callable[[bool], Any]) -> Any:
    """Call ``read(download)``, first without and then with a download; a failed download is a DataError."""
    with contextlib.redirect_stdout(sys.stderr):  # torchvision prints, and stdout is for results
        try:
            return read(False)
        except UNREADABLE:
            print(f"gmmc: {name} is not in {root}: downloading", file=sys.stderr)
        try:
            return read(True)
        except UNREADABLE as error:
            raise missing(name, root, files) from error


def _dataset(name: str, class_names: tuple[str, ...], train: Split, test: Split, validation: float) -> Dataset:
    kept, held = hold_out(train, validation, name)
    return Dataset(name, class_names, kept, held, test)


@dataclass(frozen=True, kw_only=True)
class MNIST:
    """Source table: 60,000 training and 10,000 test digits, grey, 28 x 28."""

    n_classes: ClassVar[int | None] = 10
    kind: Literal["mnist"] = "mnist"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download; DataError where neither is possible."""
        datasets = torchvision("datasets")
        root = Path(self.root)
        files = {
            "MNIST/raw/train-images-idx3-ubyte.gz": 9_912_422,
            "MNIST/raw/train-labels-idx1-ubyte.gz": 28_881,
            "MNIST/raw/t10k-images-idx3-ubyte.gz": 1_648_877,
            "MNIST/raw/t10k-labels-idx1-ubyte.gz": 4_542,
        }

        def read(train: bool) -> Split:
            source = _fetched("mnist", root, files, lambda download: datasets.MNIST(root, train=train, download=download))
            return Split(source.data[:, None].contiguous(), source.targets.long())

        return _dataset("mnist", tuple("0123456789"), read(True), read(False), self.validation)


@dataclass(frozen=True, kw_only=True)
class SVHN:
    """Source table: 73,257 training and 26,032 test house-number digits, 32 x 32."""

    n_classes: ClassVar[int | None] = 10
    kind: Literal["svhn"] = "svhn"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download; DataError where neither is possible."""
        datasets = torchvision("datasets")
        root = Path(self.root)
        files = {"train_32x32.mat": 182_040_794, "test_32x32.mat": 64_275_384}

        def read(split: str) -> Split:
            source = _fetched("svhn", root, files, lambda download: datasets.SVHN(root, split=split, download=download))
            return Split(torch.from_numpy(np.ascontiguousarray(source.data)), torch.from_numpy(source.labels.astype(np.int64)))

        return _dataset("svhn", tuple("0123456789"), read("train"), read("test"), self.validation)


def _records(path: Path, label_bytes: int) -> Split:
    """Read CIFAR's binary records: ``label_bytes`` labels (the last one counts), then 3,072 pixel bytes, channel-major."""
    raw = np.fromfile(path, dtype=np.uint8)
    width = label_bytes + 3072
    if raw.size == 0 or raw.size % width:
        raise DataError(
            f"{path} is {raw.size:,} bytes, not a multiple of CIFAR's {width:,}-byte records", "remove it and let gmmc fetch it again"
        )
    rows = raw.reshape(-1, width)
    images = np.ascontiguousarray(rows[:, label_bytes:]).reshape(-1, 3, 32, 32)
    return Split(torch.from_numpy(images), torch.from_numpy(rows[:, label_bytes - 1].astype(np.int64)))


@dataclass(frozen=True)
class _CifarArchive:
    """One of the two binary archives: the python ones that torchvision's classes read are pickles."""

    name: str
    url: str
    md5: str
    size: int
    folder: str
    train: tuple[str, ...]
    test: str
    label_bytes: int

    def load(self, root: Path, validation: float, names: Callable[[Path], tuple[str, ...]]) -> Dataset:
        utils = torchvision("datasets.utils")
        folder = root / self.folder

        def read(download: bool) -> tuple[Split, Split, tuple[str, ...]]:
            if download:
                utils.download_and_extract_archive(self.url, str(root), md5=self.md5)
            train = concatenate(*(_records(folder / file, self.label_bytes) for file in self.train))
            return train, _records(folder / self.test, self.label_bytes), names(folder)

        archive = self.url.rpartition("/")[2]
        train, test, class_names = _fetched(self.name, root, {archive: self.size}, read)
        return _dataset(self.name, class_names, train, test, validation)


@dataclass(frozen=True, kw_only=True)
class CIFAR10:
    """Source table: 50,000 training and 10,000 test images of ten things, 32 x 32."""

    n_classes: ClassVar[int | None] = 10
    kind: Literal["cifar10"] = "cifar10"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download the binary version; DataError where neither is possible."""
        batches = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
        archive = _CifarArchive(
            "cifar10",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            170_052_171,
            "cifar-10-batches-bin",
            batches,
            "test_batch.bin",
            label_bytes=1,
        )
        return archive.load(Path(self.root), self.validation, lambda folder: CIFAR10_NAMES)


@dataclass(frozen=True, kw_only=True)
class CIFAR100:
    """Source table: 50,000 training and 10,000 test images of a hundred things, 32 x 32."""

    n_classes: ClassVar[int | None] = 100
    kind: Literal["cifar100"] = "cifar100"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download the binary version; DataError where neither is possible."""
        archive = _CifarArchive(
            "cifar100",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            168_513_733,
            "cifar-100-binary",
            ("train.bin",),
            "test.bin",
            label_bytes=2,
        )
        return archive.load(Path(self.root), self.validation, lambda folder: tuple((folder / "fine_label_names.txt").read_text().split()))
