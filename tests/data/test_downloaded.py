from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import publishing
import pytest
from publishing import Images

from gmmcli.data.dataset import Dataset
from gmmcli.data.downloaded import CIFAR10, CIFAR10_NAMES, CIFAR100, MNIST, SVHN

DIGITS = tuple("0123456789")
THINGS = tuple(f"thing_{k}" for k in range(100))
Make = Callable[[pytest.MonkeyPatch, Path], tuple[Images, Images]]


def ids(images: np.ndarray, labels: np.ndarray) -> set[tuple[int, bytes]]:
    return {(int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)}


def check(dataset: Dataset, train: Images, test: Images) -> None:
    """Train and validation are the halves of the original training set, the test set is as it was."""
    assert len(dataset.train.labels) == len(dataset.validation.labels) == len(train[1]) // 2
    ours = [ids(part.images.numpy(), part.labels.numpy()) for part in (dataset.train, dataset.validation)]
    assert ours[0] | ours[1] == ids(*train)
    assert np.array_equal(dataset.test.images.numpy(), test[0])
    assert np.array_equal(dataset.test.labels.numpy(), test[1])


@pytest.mark.parametrize(
    ("source", "make", "shape", "names"),
    [
        (MNIST, publishing.mnist, (1, 28, 28), DIGITS),
        (SVHN, publishing.svhn, (3, 32, 32), DIGITS),
        (CIFAR10, publishing.cifar10, (3, 32, 32), CIFAR10_NAMES),
        (CIFAR100, publishing.cifar100, (3, 32, 32), THINGS),  # the fine labels, not the coarse ones
    ],
    ids=["mnist", "svhn", "cifar10", "cifar100"],
)
def test_a_set_is_downloaded_and_read_and_the_next_time_read_alone(
    source: Any,
    make: Make,
    shape: tuple[int, int, int],
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, test = make(monkeypatch, tmp_path / "server")
    dataset = source(root=str(tmp_path / "data"), validation=0.5).load()
    assert (dataset.name, dataset.shape, dataset.class_names) == (source.kind, shape, names)
    check(dataset, train, test)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count(f"downloading {source.kind}: ") == len(source.published.files)
    monkeypatch.setenv("GMMC_OFFLINE", "1")
    check(source(root=str(tmp_path / "data"), validation=0.5).load(), train, test)
    assert capsys.readouterr() == ("", "")


def test_the_true_files_are_known_by_https_where_there_is_any_and_by_sha256() -> None:
    for source in (MNIST, SVHN, CIFAR10, CIFAR100):
        for file in source.published.files:
            assert file.url.startswith("http://ufldl.stanford.edu/" if source is SVHN else "https://")
            assert Path(file.url).name == Path(file.place).name
            assert len(bytes.fromhex(file.sha256)) == 32
    sizes = {source.kind: source.published.megabytes for source in (MNIST, SVHN, CIFAR10, CIFAR100)}
    assert sizes == {"mnist": "12 MB", "svhn": "246 MB", "cifar10": "170 MB", "cifar100": "169 MB"}


def test_only_the_archives_are_read_whatever_else_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked copies are checked by nobody, and torchvision would unpickle processed/*.pt."""
    train, test = publishing.mnist(monkeypatch, tmp_path / "server")
    for name in ("raw/train-images-idx3-ubyte", "raw/train-labels-idx1-ubyte", "processed/training.pt", "processed/test.pt"):
        path = tmp_path / "data" / "MNIST" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a fake")
    check(MNIST(root=str(tmp_path / "data"), validation=0.5).load(), train, test)
