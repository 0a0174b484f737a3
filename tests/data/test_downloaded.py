import hashlib
import struct
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io

from gmmcli.data.dataset import Dataset
from gmmcli.data.downloaded import CIFAR10, CIFAR10_NAMES, CIFAR100, MNIST, SVHN
from gmmcli.errors import DataError
from gmmcli.vision import torchvision

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download fails as it does without a network."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def pixels(n: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def ids(images: np.ndarray, labels: np.ndarray) -> set[tuple[int, bytes]]:
    return {(int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)}


def check(dataset: Dataset, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> None:
    """Train and validation are the halves of the original training set, the test set is as it was."""
    assert len(dataset.train.labels) == len(dataset.validation.labels) == len(train[1]) // 2
    ours = [ids(part.images.numpy(), part.labels.numpy()) for part in (dataset.train, dataset.validation)]
    assert ours[0] | ours[1] == ids(*train)
    assert np.array_equal(dataset.test.images.numpy(), test[0])
    assert np.array_equal(dataset.test.labels.numpy(), test[1])


def test_mnist_from_idx_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    made = {}
    for name, n in (("train", 40), ("t10k", 10)):
        images, labels = pixels(n, 28, 28), (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, n, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, n) + labels.tobytes())
        made[name] = images[:, None], labels
    dataset = MNIST(root=str(tmp_path), validation=0.5).load()
    assert (dataset.name, dataset.shape, dataset.class_names) == ("mnist", (1, 28, 28), tuple("0123456789"))
    check(dataset, made["train"], made["t10k"])


def test_svhn_from_mat_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = torchvision("datasets")
    made, known = {}, dict(datasets.SVHN.split_list)
    for name, n in (("train", 40), ("test", 10)):
        images, labels = pixels(n, 3, 32, 32), np.arange(n) % 10
        file = tmp_path / f"{name}_32x32.mat"
        scipy.io.savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})  # SVHN's 0 is 10
        known[name] = [known[name][0], file.name, hashlib.md5(file.read_bytes()).hexdigest()]
        made[name] = images, labels
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    dataset = SVHN(root=str(tmp_path), validation=0.5).load()
    assert (dataset.name, dataset.shape) == ("svhn", (3, 32, 32))
    check(dataset, made["train"], made["test"])


def records(file: Path, images: np.ndarray, *labels: np.ndarray) -> None:
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    file.write_bytes(np.concatenate([*columns, images.reshape(len(images), -1)], axis=1).tobytes())


def cifar10(root: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    train, test = (pixels(40, 3, 32, 32), np.arange(40) % 10), (pixels(10, 3, 32, 32), np.arange(10))
    for i in range(5):
        records(folder / f"data_batch_{i + 1}.bin", train[0][8 * i : 8 * i + 8], train[1][8 * i : 8 * i + 8])
    records(folder / "test_batch.bin", *test)
    return train, test


def test_cifar10_from_binary_records(tmp_path: Path) -> None:
    train, test = cifar10(tmp_path)
    dataset = CIFAR10(root=str(tmp_path), validation=0.5).load()
    assert (dataset.name, dataset.shape, dataset.class_names) == ("cifar10", (3, 32, 32), CIFAR10_NAMES)
    check(dataset, train, test)


def cifar100(root: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    folder = root / "cifar-100-binary"
    folder.mkdir()
    train, test = (pixels(200, 3, 32, 32), np.arange(200) % 100), (pixels(100, 3, 32, 32), np.arange(100))
    records(folder / "train.bin", train[0], train[1] // 5, train[1])  # a coarse label before the fine one
    records(folder / "test.bin", test[0], test[1] // 5, test[1])
    (folder / "fine_label_names.txt").write_text("\n".join(f"thing_{k}" for k in range(100)) + "\n\n")
    return train, test


def test_cifar100_from_binary_records_takes_the_fine_labels(tmp_path: Path) -> None:
    train, test = cifar100(tmp_path)
    dataset = CIFAR100(root=str(tmp_path), validation=0.5).load()
    assert (dataset.name, dataset.shape, dataset.class_names) == ("cifar100", (3, 32, 32), tuple(f"thing_{k}" for k in range(100)))
    check(dataset, train, test)


def test_a_cut_cifar_file_is_named(tmp_path: Path) -> None:
    cifar10(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin is 24,583 bytes, not a multiple of CIFAR's 3,073-byte records"):
        CIFAR10(root=str(tmp_path), validation=0.5).load()


@pytest.mark.parametrize("file", ["train.bin", "test.bin", "fine_label_names.txt"])
def test_a_lost_cifar100_file_is_fetched_again_or_missing(file: str, tmp_path: Path) -> None:
    cifar100(tmp_path)
    (tmp_path / "cifar-100-binary" / file).unlink()
    with pytest.raises(DataError, match=r"^cifar100 is not in "):
        CIFAR100(root=str(tmp_path), validation=0.5).load()


@pytest.mark.parametrize(
    ("source", "files"),
    [
        (MNIST, {"MNIST/raw/train-images-idx3-ubyte.gz": "9,912,422", "MNIST/raw/t10k-labels-idx1-ubyte.gz": "4,542"}),
        (SVHN, {"train_32x32.mat": "182,040,794", "test_32x32.mat": "64,275,384"}),
        (CIFAR10, {"cifar-10-binary.tar.gz": "170,052,171"}),
        (CIFAR100, {"cifar-100-binary.tar.gz": "168,513,733"}),
    ],
    ids=lambda value: value.__name__.lower() if isinstance(value, type) else "",
)
def test_a_dataset_that_cannot_be_had_names_files_place_and_sizes(
    source: type[MNIST], files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError) as error:
        source(root=str(tmp_path)).load()
    assert error.value.exit_code == 3
    assert f"{source.kind} is not in {tmp_path} and could not be downloaded" in error.value.message
    for file, size in files.items():
        assert f"{tmp_path / file} ({size} bytes)" in error.value.message
    assert "data.source.root" in error.value.hint
    said = capsys.readouterr()
    assert said.out == ""
    assert "downloading" in said.err
