"""Data that no run was trained on: all of it is tested on, but where images are set apart for that."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmmcli.data.digits import Digits
from gmmcli.data.folder import Folder
from gmmcli.data.npz import Npz
from gmmcli.data.sources import foreign
from gmmcli.errors import DataError


def fill(root: Path, **n: int) -> None:
    """A folder of grey pictures for each class."""
    for name, count in n.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, i, i)).save(root / name / f"{i}.png")


@pytest.mark.parametrize(
    ("parts", "labels"),
    [
        (("",), [0, 0, 1]),
        (("train",), [0, 0, 1]),
        (("train", "val"), [0, 0, 1, 0, 0, 1]),
        (("train", "val", "Testing"), [0, 0, 1]),
        (("test",), [0, 0, 1]),
    ],
)
def test_of_a_folder_all_images_or_those_of_test(parts: tuple[str, ...], labels: list[int], tmp_path: Path) -> None:
    for part in parts:
        fill(tmp_path / part, cat=2, dog=1)
    found = foreign(Folder(path=str(tmp_path), size=8), "test")
    assert (found.test.labels.tolist(), found.class_names, len(found.test.images)) == (labels, ("cat", "dog"), len(labels))


def test_of_a_folder_with_few_images_for_testing_their_classes(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=2, dog=1, fox=1)
    fill(tmp_path / "test", fox=1)
    assert foreign(Folder(path=str(tmp_path), size=8), "test").class_names == ("fox",)


def test_a_folder_without_class_folders_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no class folders"):
        foreign(Folder(path=str(tmp_path)), "test")


@pytest.mark.parametrize(
    ("parts", "n"),
    [(("train", "val", "test"), {"test": 5}), (("train", "val"), {"train": 3, "val": 4}), (("val",), {"val": 4}), (("test",), {"test": 5})],
)
def test_of_an_npz_the_test_images_or_all(parts: tuple[str, ...], n: dict[str, int], tmp_path: Path) -> None:
    sizes = {"train": 3, "val": 4, "test": 5}
    arrays = {f"{part}_images": np.full((sizes[part], 8, 8), sizes[part], np.uint8) for part in parts}
    np.savez(tmp_path / "x.npz", **arrays, **{f"{part}_labels": np.arange(sizes[part]) % 2 for part in parts})  # type: ignore[arg-type]
    found = foreign(Npz(path=str(tmp_path / "x.npz")), "test")
    assert found.test.images[:, 0, 0, 0].tolist() == [size for size in n.values() for _ in range(size)]
    assert found.class_names == ("0", "1")


def test_an_npz_without_images_says_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(DataError, match="has no array 'test_images'"):
        foreign(Npz(path=str(tmp_path / "x.npz")), "test")


def test_named_sets_and_other_splits_are_as_in_training(tmp_path: Path) -> None:
    assert len(foreign(Digits(), "test").test) == 360
    fill(tmp_path, cat=20, dog=20)
    source = Folder(path=str(tmp_path), size=8)
    assert len(foreign(source, "validation").validation) == len(source.load().validation) < 40
