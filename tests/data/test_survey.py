"""What is told of images before they are trained on agrees with what training then loads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmmcli.data.digits import Digits
from gmmcli.data.downloaded import MNIST
from gmmcli.data.folder import Folder
from gmmcli.data.npz import Npz
from gmmcli.data.survey import GREY, LOOKED_AT, SHARES, Survey, survey
from gmmcli.errors import DataError


def pictures(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30), mode: str = "RGB", form: str = "png") -> Path:
    """Write so many pictures of noise for each class."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0]) if mode == "L" else (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03}.{form}")
    return root


def arrays(path: Path, n: int, n_classes: int = 3) -> Path:
    labels = np.arange(n) % n_classes
    np.savez(
        path,
        train_images=np.zeros((n, 9, 9), np.uint8),
        train_labels=labels,
        test_images=np.zeros((3, 9, 9), np.uint8),
        test_labels=[0, 1, 2],
    )
    return path


def check_as_loaded(found: Survey) -> None:
    dataset = found.source.load()
    assert (found.n_train, found.class_names) == (len(dataset.train), dataset.class_names)


def test_a_folder_is_counted_as_training_divides_it(tmp_path: Path) -> None:
    found = survey(Folder(path=str(pictures(tmp_path, {"cat": 31, "dog": 40, "eel": 29}))))
    assert (found.n_train, found.n_classes, found.side, found.channels) == (81, 3, 30, 3)
    assert found.source == Folder(path=str(tmp_path), validation=0.1)
    check_as_loaded(found)


def test_what_is_set_apart_is_not_held_out_again(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        pictures(tmp_path / split, {"cat": 11, "dog": 10})
    found = survey(Folder(path=str(tmp_path)))
    assert found.n_train == 21
    check_as_loaded(found)


def few_pictures(folder: Path) -> Folder:
    return Folder(path=str(pictures(folder, {"a": 7, "b": 6, "c": 5})))


def few_arrays(folder: Path) -> Npz:
    return Npz(path=str(arrays(folder / "few.npz", 18)))


@pytest.mark.parametrize("source", [few_pictures, few_arrays])
def test_of_few_images_a_larger_share_is_held_out(source: Callable[[Path], Folder | Npz], tmp_path: Path) -> None:
    given = source(tmp_path)
    with pytest.raises(DataError, match=r"cannot hold out a share of 0\.1"):
        given.load()
    found = survey(given)
    assert found.source == replace(given, validation=SHARES[1])
    check_as_loaded(found)


def test_npz_and_digits_are_what_they_are(tmp_path: Path) -> None:
    found = survey(Npz(path=str(arrays(tmp_path / "a.npz", 60))))
    assert (found.n_train, found.side, found.channels, found.class_names, found.characters) == (54, 9, 1, ("0", "1", "2"), True)
    digits = survey(Digits())
    assert (digits.n_train, digits.side, digits.channels, digits.n_classes) == (1257, 8, 1, 10)


@pytest.mark.parametrize(("mode", "form", "channels"), [("L", "png", 1), ("L", "jpg", 1), ("RGB", "png", 3), ("RGB", "jpg", 3)])
def test_grey_is_told_from_colour(mode: str, form: str, channels: int, tmp_path: Path) -> None:
    assert survey(Folder(path=str(pictures(tmp_path, {"cat": 5, "dog": 5}, mode=mode, form=form)))).channels == channels


def test_grey_saved_in_colour_is_grey_and_a_single_coloured_picture_is_enough_to_be_colour(tmp_path: Path) -> None:
    folder = pictures(tmp_path, {"cat": 5, "dog": 5}, mode="L")
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    assert survey(Folder(path=str(folder))).channels == 1
    Image.new("RGB", (20, 20), (200, 200 - int(GREY) - 2, 200)).save(folder / "dog" / "0.jpg", quality=100)
    assert survey(Folder(path=str(folder))).channels == 3


def test_the_side_is_the_median_of_the_shorter_sides_of_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path, {"cat": 30, "dog": 30}, (10, 50))
    pictures(tmp_path, {"dog": 12}, (90, 70))
    assert survey(Folder(path=str(folder))).side == 10
    seen: list[object] = []
    monkeypatch.setattr("gmmcli.data.survey.decode", lambda file, *_: seen.append(file) or np.zeros((9, 8, 3), np.uint8))
    survey(Folder(path=str(folder)))
    assert len(seen) == len(set(map(str, seen))) == LOOKED_AT


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 9}, "has one class only"),
        ({"cat": 9, "dog": 0}, "no image of class 'dog'"),
        ({"cat": 9, "dog": 1}, "only one with label 1"),
        ({"cat": 2, "dog": 2}, "cannot hold out"),
        ({}, "no class folders"),
    ],
)
def test_what_cannot_be_trained_on_is_said(counts: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        survey(Folder(path=str(pictures(tmp_path, counts))))


def test_nothing_is_downloaded_and_what_is_known_is_enough(tmp_path: Path) -> None:
    found = survey(MNIST(root=str(tmp_path)))
    assert (found.n_train, found.n_classes, found.channels, found.side, found.characters) == (54_000, 10, 1, 28, True)
    assert list(tmp_path.iterdir()) == []
