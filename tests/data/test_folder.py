import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gmmcli.data.folder import Folder
from gmmcli.errors import DataError

RNG = np.random.default_rng(0)
ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "cifar10_imagefolder.tar.xz"


def paint(path: Path, size: tuple[int, int] = (8, 8), grey: int | None = None) -> Path:
    """Write one picture: random RGB, or all of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) if grey is None else np.full((size[1], size[0], 3), grey, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tree(root: Path, n: int = 12) -> Path:
    """Cats are dark and dogs are bright, as far as one can tell."""
    for i in range(n):
        paint(root / "dog" / f"{i}.png", grey=200)
        paint(root / "cat" / f"{i}.PNG", grey=50)
    return root


def folder(path: Path, size: int = 8, channels: int = 3) -> Folder:
    return Folder(path=str(path), size=size, channels=channels, validation=0.25)  # type: ignore[arg-type]


def sizes(source: Folder) -> list[int]:
    dataset = source.load()
    assert dataset.class_names == ("cat", "dog")
    for part in (dataset.train, dataset.validation, dataset.test):
        assert torch.equal(part.images[:, 0, 0, 0], torch.where(part.labels == 0, 50, 200).to(torch.uint8))
    return [len(part.images) for part in (dataset.train, dataset.validation, dataset.test)]


def test_a_plain_tree_holds_out_test_and_validation(tmp_path: Path) -> None:
    assert sizes(folder(tree(tmp_path))) == [14, 4, 6]  # a quarter of 24, then a quarter of the 18 left


def test_a_tree_with_train_and_test_holds_out_validation_only(tmp_path: Path) -> None:
    tree(tmp_path / "train"), tree(tmp_path / "test", 5)
    assert sizes(folder(tmp_path)) == [18, 6, 10]


@pytest.mark.parametrize(
    ("train", "val", "test"), [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train", "validation", "test")]
)
def test_a_tree_with_everything_holds_nothing_out(train: str, val: str, test: str, tmp_path: Path) -> None:
    tree(tmp_path / train), tree(tmp_path / val, 3), tree(tmp_path / test, 5)
    assert sizes(folder(tmp_path)) == [24, 6, 10]


def test_a_training_tree_without_test_holds_out_both(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    assert sizes(folder(tmp_path)) == [14, 4, 6]


@pytest.mark.parametrize("parts", [[""], ["train", "test"], ["train", "val", "test"]])
@pytest.mark.parametrize("top", [True, False], ids=["zip of the folder", "zip of its content"])
def test_a_zip_is_read_like_the_tree_in_it(parts: list[str], top: bool, tmp_path: Path) -> None:
    for part in parts:
        tree(tmp_path / "pets" / part)
    zipped = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path if top else tmp_path / "pets", "pets" if top else None)
    assert sizes(folder(Path(zipped))) == sizes(folder(tmp_path / "pets"))


def test_what_a_mac_leaves_in_a_zip_is_passed_over(tmp_path: Path) -> None:
    zipped = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", tree(tmp_path / "pets").parent, "pets"))
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("__MACOSX/pets/cat/._0.png", b"junk")
        archive.writestr("pets/cat/._0.png", b"junk")
        archive.writestr("pets/.DS_Store", b"junk")
    assert sizes(folder(zipped)) == [14, 4, 6]


def test_images_are_cropped_to_the_middle_and_resized(tmp_path: Path) -> None:
    tree(tmp_path)
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255  # only the middle third is white
    for i in range(40):
        Image.fromarray(wide).save(paint(tmp_path / "elk" / f"{i}.png"))
    dataset = folder(tmp_path, size=8).load()
    elks = dataset.train.images[dataset.train.labels == 2]
    assert dataset.shape == (3, 8, 8)
    assert elks[:, :, :, 1:-1].min() >= 254  # rounding


def test_one_channel_is_grey(tmp_path: Path) -> None:
    dataset = folder(tree(tmp_path), channels=1).load()
    assert dataset.shape == (1, 8, 8)
    assert dataset.train.images.unique().tolist() == [50, 200]


def test_pixels_of_fitting_images_are_untouched(tmp_path: Path) -> None:
    tree(tmp_path / "train"), tree(tmp_path / "test", 1)
    file = paint(tmp_path / "test" / "cat" / "0.PNG")
    assert np.array_equal(folder(tmp_path).load().test.images[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))


def test_size_0_keeps_the_size_that_all_have(tmp_path: Path) -> None:
    tree(tmp_path)
    assert folder(tmp_path, size=0).load().shape == (3, 8, 8)


def test_size_0_with_mixed_sizes_names_two_files(tmp_path: Path) -> None:
    paint(tree(tmp_path) / "dog" / "0.png", (9, 8))
    with pytest.raises(DataError, match=r"dog/0\.png is 9 x 8, .*cat/0\.PNG is 8 x 8") as error:
        folder(tmp_path, size=0).load()
    assert error.value.hint == "set data.source.size to bring all to one size"


@pytest.mark.parametrize("damage", ["junk", "truncated", "empty"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_image_is_named(damage: str, zipped: bool, tmp_path: Path) -> None:
    file = paint(tree(tmp_path / "pets") / "dog" / "7.png", (32, 32))
    content = file.read_bytes()
    file.write_bytes({"junk": b"not a picture", "truncated": content[: len(content) // 2], "empty": b""}[damage])
    path = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets")) if zipped else tmp_path / "pets"
    with pytest.raises(DataError, match=r"dog/7\.png is not a readable image") as error:
        folder(path).load()
    assert error.value.exit_code == 3


def test_a_zip_damaged_inside_names_the_image(tmp_path: Path) -> None:
    tree(tmp_path / "pets")
    path = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets"))
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("dog/7.png").header_offset + 30 + len("dog/7.png")
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"dog/7\.png is not a readable image"):
        folder(path).load()


def test_a_class_folder_without_images(tmp_path: Path) -> None:
    (tree(tmp_path) / "elk").mkdir()
    (tmp_path / "elk" / "notes.txt").write_text("no elk yet")
    with pytest.raises(DataError, match=r"elk holds no images$"):
        folder(tmp_path).load()


def test_a_training_class_that_test_lacks(tmp_path: Path) -> None:
    tree(tmp_path / "train"), tree(tmp_path / "test")
    shutil.rmtree(tmp_path / "test" / "cat")
    with pytest.raises(DataError, match=r"test/cat holds no images$"):
        folder(tmp_path).load()


def test_a_test_class_that_train_lacks(tmp_path: Path) -> None:
    tree(tmp_path / "train"), tree(tmp_path / "test")
    paint(tmp_path / "test" / "elk" / "0.png")
    with pytest.raises(DataError, match=r"class 'elk' is not among the training classes$"):
        folder(tmp_path).load()


def test_no_class_folders(tmp_path: Path) -> None:
    paint(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"has no class folders$"):
        folder(tmp_path).load()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no folder or \.zip at .*gone$"):
        folder(tmp_path / "gone").load()


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"x\.zip is not a \.zip file$"):
        folder(tmp_path / "x.zip").load()


def greys(source: Folder, last: int = 0) -> list[int]:
    """The pictures by their one grey each."""
    images = source.pictures(last)
    assert (images.dtype, images.shape[1:]) == (torch.uint8, (source.channels, 8, 8))
    assert all(image.unique().numel() == 1 for image in images)
    return [int(image[0, 0, 0]) for image in images]


def gallery(root: Path) -> Path:
    """Loose pictures, and more of them at two depths."""
    for grey, name in enumerate(("b.png", "a.png", "y/c.png", "x/e.PNG", "x/deep/d.png"), 1):
        paint(root / name, grey=grey)
    (root / "x" / "notes.txt").write_text("not a picture")
    (root / "x" / ".hidden.png").write_bytes(b"junk")
    return root


def test_pictures_are_all_there_are_each_folders_own_before_those_below_it(tmp_path: Path) -> None:
    assert greys(folder(gallery(tmp_path))) == [2, 1, 4, 5, 3]


@pytest.mark.parametrize(("last", "expected"), [(0, [2, 1, 4, 5, 3]), (1, [3]), (2, [5, 3]), (99, [2, 1, 4, 5, 3])])
def test_the_last_so_many_pictures(last: int, expected: list[int], tmp_path: Path) -> None:
    assert greys(folder(gallery(tmp_path)), last) == expected


@pytest.mark.parametrize("name", ["test", "Testing"])
def test_where_there_is_a_test_folder_its_pictures_are_meant(name: str, tmp_path: Path) -> None:
    gallery(tmp_path), tree(tmp_path / "train", 2), tree(tmp_path / name, 2)
    assert greys(folder(tmp_path)) == [50, 50, 200, 200]


def test_a_test_folder_needs_no_classes(tmp_path: Path) -> None:
    tree(tmp_path / "train", 2), gallery(tmp_path / "test")
    assert greys(folder(tmp_path)) == [2, 1, 4, 5, 3]


@pytest.mark.parametrize("top", [True, False], ids=["zip of the folder", "zip of its content"])
@pytest.mark.parametrize("part", ["", "test"])
def test_pictures_in_a_zip_are_those_of_the_tree_in_it(part: str, top: bool, tmp_path: Path) -> None:
    gallery(tmp_path / "faces" / part)
    paint(tmp_path / "faces" / "train" / "a.png", grey=9)
    zipped = shutil.make_archive(str(tmp_path / "faces"), "zip", tmp_path if top else tmp_path / "faces", "faces" if top else None)
    expected = [2, 1, 4, 5, 3] if part else [2, 1, 9, 4, 5, 3]
    assert greys(folder(tmp_path / "faces")) == greys(folder(Path(zipped))) == expected


def test_pictures_are_fitted_as_in_training(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (30, 14), grey=7), paint(tmp_path / "b.png", (8, 64), grey=8)
    assert greys(folder(tmp_path)) == greys(folder(tmp_path, channels=1)) == [7, 8]


def test_pictures_of_mixed_sizes_that_are_to_be_kept_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "a.png"), paint(tmp_path / "b.png", (9, 8))
    with pytest.raises(DataError, match=r"b\.png is 9 x 8, .*a\.png is 8 x 8"):
        folder(tmp_path, size=0).pictures()


@pytest.mark.parametrize("inside", ["", "test"])
def test_a_folder_without_pictures(inside: str, tmp_path: Path) -> None:
    (tmp_path / inside / "x").mkdir(parents=True)
    (tmp_path / inside / "x" / "notes.txt").write_text("no pictures")
    with pytest.raises(DataError, match=r"holds no images$") as error:
        folder(tmp_path).pictures()
    assert ".png" in error.value.hint


def test_a_damaged_picture_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a\.png is not a readable image"):
        folder(tmp_path).pictures()
    with pytest.raises(DataError, match=r"^no folder or \.zip at .*gone$"):
        folder(tmp_path / "gone").pictures()


@pytest.mark.realdata
def test_real_photographs(tmp_path: Path) -> None:
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE.name} is not beside the checkout")
    taken: dict[str, int] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            group = str(Path(member.name).parent)
            if member.isfile() and taken.get(group, 0) < 20:
                taken[group] = taken.get(group, 0) + 1
                archive.extract(member, tmp_path, filter="data")
    dataset = Folder(path=str(tmp_path), size=0).load()
    assert dataset.class_names == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert dataset.shape == (3, 32, 32)
    assert [len(part.images) for part in (dataset.train, dataset.validation, dataset.test)] == [180, 20, 200]
