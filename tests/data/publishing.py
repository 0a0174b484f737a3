"""Small sets of images published as their makers publish the large ones: the files' true names and formats, other content."""

import gzip
import io
import struct
import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from gmmcli.data.downloaded import CIFAR10, CIFAR100, MNIST, SVHN

RNG = np.random.default_rng(0)
Images = tuple[np.ndarray, np.ndarray]


def publish(monkeypatch: pytest.MonkeyPatch, source: Any, server: Path, contents: dict[str, bytes]) -> None:
    """Put files on a server, a folder, and make a source know them instead of the true ones."""
    server.mkdir(exist_ok=True)
    files = []
    for file in source.published.files:
        name = Path(file.place).name
        (server / name).write_bytes(contents[name])
        files.append(file._replace(url=(server / name).as_uri(), size=len(contents[name]), sha256=sha256(contents[name]).hexdigest()))
    monkeypatch.setattr(source, "published", replace(source.published, files=tuple(files)))


def pixels(n: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def two_splits(n_train: int, n_test: int, classes: int, *shape: int) -> tuple[Images, Images]:
    train, test = ((pixels(n, *shape), np.arange(n) % classes) for n in (n_train, n_test))
    return train, test


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">{1 + values.ndim}i", 0x800 + values.ndim, *values.shape) + values.astype(np.uint8).tobytes())


def mnist(monkeypatch: pytest.MonkeyPatch, server: Path) -> tuple[Images, Images]:
    train, test = two_splits(40, 10, 10, 1, 28, 28)
    contents = {}
    for name, (images, labels) in {"train": train, "t10k": test}.items():
        contents |= {f"{name}-images-idx3-ubyte.gz": idx(images[:, 0]), f"{name}-labels-idx1-ubyte.gz": idx(labels)}
    publish(monkeypatch, MNIST, server, contents)
    return train, test


def mat(images: np.ndarray, labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})  # SVHN's 0 is 10
    return file.getvalue()


def svhn(monkeypatch: pytest.MonkeyPatch, server: Path) -> tuple[Images, Images]:
    train, test = two_splits(40, 10, 10, 3, 32, 32)
    publish(monkeypatch, SVHN, server, {"train_32x32.mat": mat(*train), "test_32x32.mat": mat(*test)})
    return train, test


def records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, images.reshape(len(images), -1)], axis=1).tobytes()


def archive(folder: str, files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(about := tarfile.TarInfo(folder))
        about.type = tarfile.DIRTYPE
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def cifar10(monkeypatch: pytest.MonkeyPatch, server: Path) -> tuple[Images, Images]:
    train, test = two_splits(40, 10, 10, 3, 32, 32)
    files = {"test_batch.bin": records(*test)}
    files |= {f"data_batch_{i + 1}.bin": records(train[0][8 * i : 8 * i + 8], train[1][8 * i : 8 * i + 8]) for i in range(5)}
    publish(monkeypatch, CIFAR10, server, {"cifar-10-binary.tar.gz": archive("cifar-10-batches-bin", files)})
    return train, test


def cifar100(monkeypatch: pytest.MonkeyPatch, server: Path) -> tuple[Images, Images]:
    train, test = two_splits(200, 100, 100, 3, 32, 32)
    files = {f"{name}.bin": records(images, labels // 5, labels) for name, (images, labels) in {"train": train, "test": test}.items()}
    files["fine_label_names.txt"] = "\n".join(f"thing_{k}" for k in range(100)).encode() + b"\n\n"
    publish(monkeypatch, CIFAR100, server, {"cifar-100-binary.tar.gz": archive("cifar-100-binary", files)})  # a coarse label first
    return train, test
