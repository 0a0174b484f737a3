"""MNIST, CIFAR and SVHN, read from the very files that their makers publish.

Archives are read in memory and never unpacked to disk: there is no copy that nobody has checked, and no pickle among what is read. The
sizes and sha256 are those that TensorFlow Datasets publishes (tensorflow_datasets/url_checksums).
"""

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from gmmcli.data.dataset import Dataset, HeldOut, Split, concatenate, hold_out
from gmmcli.data.remote import Published, RemoteFile

DIGITS = tuple("0123456789")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _dataset(name: str, class_names: tuple[str, ...], train: Split, test: Split, validation: float) -> Dataset:
    kept, held = hold_out(train, validation, name)
    return Dataset(name, class_names, kept, held, test)


def blank(source: "MNIST | SVHN | CIFAR10 | CIFAR100") -> Dataset:
    """Black images of the numbers and size that a source has, in as many classes: all that a plan needs, without the files."""
    about, k = source.published, source.n_classes
    train, test = (Split(torch.zeros(n, *about.shape, dtype=torch.uint8), torch.arange(n) % k) for n in (about.n_train, about.n_test))
    return _dataset(about.name, tuple(map(str, range(k))), train, test, source.validation)


def _mnist_file(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}", f"MNIST/raw/{name}", size, sha256)


def _idx(content: bytes) -> torch.Tensor:
    """Read a gzipped IDX file of bytes: a magic number whose last byte is the rank, the sizes of the axes, the values."""
    raw = gzip.decompress(content)
    axes = np.frombuffer(raw, ">u4", raw[3], offset=4)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * len(axes)).reshape(axes).copy())


@dataclass(frozen=True, kw_only=True)
class MNIST:
    """Source table: 60,000 training and 10,000 test digits, grey, 28 x 28."""

    n_classes: ClassVar[int] = 10
    published: ClassVar[Published] = Published(
        "mnist",
        (
            _mnist_file("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            _mnist_file("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            _mnist_file("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            _mnist_file("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        shape=(1, 28, 28),
        n_train=60_000,
        n_test=10_000,
    )
    kind: Literal["mnist"] = "mnist"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download; DataError where neither is possible."""
        images, labels, test_images, test_labels = map(_idx, self.published.contents(Path(self.root)))
        train, test = Split(images[:, None], labels.long()), Split(test_images[:, None], test_labels.long())
        return _dataset("mnist", DIGITS, train, test, self.validation)


def _svhn_file(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(f"http://ufldl.stanford.edu/housenumbers/{name}", name, size, sha256)  # the server has no https


def _mat(content: bytes) -> Split:
    """Read SVHN's MATLAB file: X (height, width, channel, image), and y, where 10 is the digit 0."""
    from scipy.io import loadmat

    arrays = loadmat(io.BytesIO(content))
    images = np.ascontiguousarray(arrays["X"].transpose(3, 2, 0, 1))
    return Split(torch.from_numpy(images), torch.from_numpy(arrays["y"].astype(np.int64).flatten() % 10))


@dataclass(frozen=True, kw_only=True)
class SVHN:
    """Source table: 73,257 training and 26,032 test house-number digits, 32 x 32."""

    n_classes: ClassVar[int] = 10
    published: ClassVar[Published] = Published(
        "svhn",
        (
            _svhn_file("train_32x32.mat", 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
            _svhn_file("test_32x32.mat", 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
        ),
        shape=(3, 32, 32),
        n_train=73_257,
        n_test=26_032,
    )
    kind: Literal["svhn"] = "svhn"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download; DataError where neither is possible."""
        train, test = map(_mat, self.published.contents(Path(self.root)))
        return _dataset("svhn", DIGITS, train, test, self.validation)


def _cifar(name: str, size: int, sha256: str) -> Published:
    """The archive of plain records: those that torchvision reads are pickles (docs/decisions/0001)."""
    archive = f"{name}-binary.tar.gz"
    url = f"https://www.cs.toronto.edu/~kriz/{archive}"
    return Published(name.replace("-", ""), (RemoteFile(url, archive, size, sha256),), shape=(3, 32, 32), n_train=50_000, n_test=10_000)


def _members(content: bytes) -> dict[str, bytes]:
    """The files of a .tar.gz by their names without folders, unpacked in one pass."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {Path(member.name).name: file.read() for member in archive if (file := archive.extractfile(member))}


def _records(content: bytes, label_bytes: int) -> Split:
    """Read CIFAR's binary records: ``label_bytes`` labels (the last one counts), then 3,072 pixel bytes, channel-major."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    return Split(torch.from_numpy(images), torch.from_numpy(rows[:, label_bytes - 1].astype(np.int64)))


@dataclass(frozen=True, kw_only=True)
class CIFAR10:
    """Source table: 50,000 training and 10,000 test images of ten things, 32 x 32."""

    n_classes: ClassVar[int] = 10
    published: ClassVar[Published] = _cifar("cifar-10", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
    kind: Literal["cifar10"] = "cifar10"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download the binary version; DataError where neither is possible."""
        (files,) = map(_members, self.published.contents(Path(self.root)))
        train = concatenate(*(_records(files[f"data_batch_{i}.bin"], 1) for i in range(1, 6)))
        return _dataset("cifar10", CIFAR10_NAMES, train, _records(files["test_batch.bin"], 1), self.validation)


@dataclass(frozen=True, kw_only=True)
class CIFAR100:
    """Source table: 50,000 training and 10,000 test images of a hundred things, 32 x 32."""

    n_classes: ClassVar[int] = 100
    published: ClassVar[Published] = _cifar("cifar-100", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec")
    kind: Literal["cifar100"] = "cifar100"
    root: str = "data"
    """Where the files are, or are downloaded to."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation."""

    def load(self) -> Dataset:
        """Read or download the binary version; DataError where neither is possible."""
        (files,) = map(_members, self.published.contents(Path(self.root)))
        class_names = tuple(files["fine_label_names.txt"].decode().split())
        return _dataset("cifar100", class_names, _records(files["train.bin"], 2), _records(files["test.bin"], 2), self.validation)
