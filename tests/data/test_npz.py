from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmmcli.data.npz import Npz
from gmmcli.errors import DataError

RNG = np.random.default_rng(0)
REAL = Path(__file__).parents[3] / "shared" / "data"


def pictures(n: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, *(shape or (8, 8, 3))), dtype=np.uint8)


def good() -> dict[str, np.ndarray]:
    """Forty training and ten test images of two classes."""
    return {
        "train_images": pictures(40),
        "train_labels": np.arange(40) % 2,
        "test_images": pictures(10),
        "test_labels": np.arange(10) % 2,
        "class_names": np.array(["cat", "dog"]),
    }


def save(folder: Path, **arrays: Any) -> Npz:
    np.savez_compressed(folder / "x.npz", **{name: array for name, array in (good() | arrays).items() if array is not None})
    return Npz(path=str(folder / "x.npz"))


def test_a_good_archive_is_read_whole(tmp_path: Path) -> None:
    arrays = good()
    dataset = save(tmp_path, **arrays).load()
    assert dataset.class_names == ("cat", "dog")
    assert dataset.shape == (3, 8, 8)
    assert [len(dataset.split(name).images) for name in ("train", "validation", "test")] == [36, 4, 10]  # type: ignore[arg-type]
    assert np.array_equal(dataset.test.images.numpy(), arrays["test_images"].transpose(0, 3, 1, 2))
    assert np.array_equal(dataset.test.labels.numpy(), arrays["test_labels"])


def test_validation_images_that_are_there_are_used_and_train_kept_whole(tmp_path: Path) -> None:
    val = pictures(6)
    dataset = save(tmp_path, val_images=val, val_labels=np.arange(6) % 2).load()
    assert len(dataset.train.images) == 40
    assert np.array_equal(dataset.validation.images.numpy(), val.transpose(0, 3, 1, 2))


def test_labels_may_be_a_column_of_any_integers(tmp_path: Path) -> None:
    dataset = save(tmp_path, train_labels=(np.arange(40, dtype=np.uint8) % 2)[:, None]).load()
    assert dataset.train.labels.dtype == torch.int64
    assert dataset.train.labels.bincount().tolist() == [18, 18]


def test_grey_images_may_come_without_a_channel_axis(tmp_path: Path) -> None:
    dataset = save(tmp_path, train_images=pictures(40, 8, 8), test_images=pictures(10, 8, 8)).load()
    assert dataset.shape == (1, 8, 8)


def test_without_names_classes_are_called_by_number(tmp_path: Path) -> None:
    assert save(tmp_path, class_names=None).load().class_names == ("0", "1")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no training images": ({"train_images": None}, "x.npz has no array 'train_images'"),
    "no test labels": ({"test_labels": None}, "x.npz has no array 'test_labels'"),
    "validation labels missing": ({"val_images": pictures(4)}, "x.npz has no array 'val_labels'"),
    "floats": ({"train_images": pictures(40) / 255}, "train_images is float64 of shape (40, 8, 8, 3)"),
    "flat images": ({"train_images": pictures(40, 64)}, "train_images is uint8 of shape (40, 64)"),
    "labels that are floats": ({"train_labels": np.zeros(40)}, "train_labels is float64 of shape (40,) for 40 images"),
    "one-hot labels": ({"train_labels": np.eye(40, 2, dtype=int)}, "train_labels is int64 of shape (40, 2) for 40 images"),
    "one label for all": ({"train_labels": np.array(1)}, "train_labels is int64 of shape () for 40 images"),
    "too few labels": ({"train_labels": np.arange(30) % 2}, "train_labels is int64 of shape (30,) for 40 images"),
    "too many labels": ({"train_labels": np.arange(50) % 2}, "train_labels is int64 of shape (50,) for 40 images"),
    "objects": ({"train_labels": np.array([None] * 40)}, "x.npz cannot be read as an .npz of plain arrays (Object arrays"),
    "a label beyond the names": ({"test_labels": np.arange(10)}, "x.npz, test: label 2 of image 2 is outside 0..1"),
    "one image of its class": (
        {"train_labels": np.array([*(np.arange(39) % 2), 99]), "class_names": None},
        "image 39 is the only one with label 99",
    ),
    "one image beyond the names": (
        {"train_labels": np.array([*(np.arange(39) % 2), 99])},
        "x.npz, train: label 99 of image 39 is outside 0..1",
    ),
    "a label below 0": ({"train_labels": np.array([-1, *(np.arange(39) % 2)])}, "x.npz, train: label -1 of image 0 is outside 0..1"),
    "one name alone": ({"class_names": np.array("cat")}, "label 1 of image 1 is outside 0..0"),
}


@pytest.mark.parametrize(("arrays", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_archive_is_an_error_that_names_the_array(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = save(tmp_path, **arrays)
    with pytest.raises(DataError) as error:
        source.load()
    assert message in error.value.message
    assert error.value.hint


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no file at .*gone\.npz$"):
        Npz(path=str(tmp_path / "gone.npz")).load()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        Npz(path=str(tmp_path / "x.npz")).load()


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pictures(3))
    with pytest.raises(DataError, match=r"x\.npy cannot be read"):
        Npz(path=str(tmp_path / "x.npy")).load()


def test_damaged_bytes_inside(tmp_path: Path) -> None:
    source = save(tmp_path)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[100:400] = bytes(255 - byte for byte in content[100:400])
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        source.load()


def real(name: str) -> Npz:
    if not (REAL / name).exists():
        pytest.skip(f"{name} is not beside the checkout")
    return Npz(path=str(REAL / name))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [("mnist_10k.npz", (1, 28, 28), [9000, 1000, 5000]), ("svhn_1k.npz", (3, 32, 32), [499, 55, 486])],
)
def test_real_digits(name: str, shape: tuple[int, int, int], sizes: list[int]) -> None:
    dataset = real(name).load()
    assert dataset.shape == shape
    assert dataset.class_names == tuple("0123456789")
    assert [len(dataset.split(part).images) for part in ("train", "validation", "test")] == sizes  # type: ignore[arg-type]
    assert dataset.train.labels.unique().tolist() == list(range(10))


@pytest.mark.realdata
def test_faces_are_one_class_and_no_classifier_can_come_of_it() -> None:
    with pytest.raises(DataError, match=r"has one class only|cannot hold out"):
        real("faces_gray_5k.npz").load().check_trainable()
