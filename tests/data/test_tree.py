"""Folders and .zip files that somebody made to do harm, or that a long life has made odd."""

import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gmmcli.data import tree
from gmmcli.data.folder import Folder
from gmmcli.data.inspection import inspect
from gmmcli.data.reading import CLASSES, NAME, Archive
from gmmcli.data.tree import DEPTH, Index, Zipped, content, images_below, listed
from gmmcli.errors import DataError


def paint(path: Path, grey: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path, "PNG")
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for i in range(6):
            paint(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def pack(pets: Path, **compression: int) -> Path:
    """The same as a .zip."""
    with zipfile.ZipFile(pets.with_suffix(".zip"), "w", **compression) as archive:
        for file in sorted(path for path in pets.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(pets))
    return pets.with_suffix(".zip")


def source(path: Path) -> Folder:
    return Folder(path=str(path), size=8, validation=0.25)


def names(images: list[tree.Tree], root: Path) -> list[str]:
    return [str(image).removeprefix(f"{root}/") for image in images]


def refused(path: Path, message: str, read: Callable[[Folder], object] = Folder.load) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(source(path))
    assert caught.value.hint and len(caught.value.message) < 1000


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a link to a named pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL)
def test_what_is_no_regular_file_is_named_and_not_opened(make: Callable[[Path], object], pets: Path) -> None:
    make(pets / "dog" / "7.png")
    refused(pets, r"dog/7\.png is not a readable image \(not a regular file\)$")
    make(pets / "x.zip")
    refused(pets / "x.zip", r"x\.zip cannot be read \(not a regular file\)$")


def test_a_link_to_itself_and_one_that_leads_nowhere_are_named(pets: Path) -> None:
    (pets / "dog" / "7.png").symlink_to("7.png")
    refused(pets, r"dog/7\.png is not a readable image \(Too many levels of symbolic links\)$")
    (pets / "dog" / "7.png").unlink()
    (pets / "dog" / "7.png").symlink_to("gone.png")
    refused(pets, r"dog/7\.png is not a readable image \(No such file or directory\)$")


def test_links_are_followed_out_of_the_tree_but_no_folder_is_read_twice(pets: Path) -> None:
    paint(pets.parent / "elsewhere" / "elk.png")
    (pets / "dog" / "more").symlink_to("../../elsewhere")
    (pets / "cat" / "up").symlink_to("..")  # a loop
    (pets / "cat" / "self").symlink_to(".")
    (pets / "cat" / "friend").symlink_to("../dog")
    (pets / "dog" / "friend").symlink_to("../cat")
    (pets / "dog" / "all").symlink_to("/")  # it contains the tree
    found = names(images_below(pets), pets)
    expected = [f"cat/{i}.png" for i in range(6)] + [f"cat/friend/{i}.png" for i in range(6)] + ["cat/friend/more/elk.png"]
    assert found == expected
    elks = pets / "elk"
    elks.symlink_to("../elsewhere")
    for i in range(6):
        (pets.parent / "elsewhere" / f"{i}.png").symlink_to("elk.png")
    assert source(pets).load().class_names == ("cat", "dog", "elk")


def test_links_that_multiply_are_read_once(tmp_path: Path) -> None:
    paint(tmp_path / "0" / "a.png")
    for i in range(40):  # two links each: 2^40 ways down
        (tmp_path / str(i)).mkdir(exist_ok=True)
        for name in "xy":
            (tmp_path / str(i) / name).symlink_to(f"../{(i + 1) % 40}")
    assert len(images_below(tmp_path / "1")) == 1


def test_the_depth_is_limited(tmp_path: Path) -> None:
    paint(tmp_path / "/".join("d" * DEPTH) / "a.png")
    assert len(images_below(tmp_path)) == 1
    (tmp_path / "/".join("d" * 900)).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"is more than {DEPTH} folders deep$"):
        images_below(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("d/" * 30_000 + "a.png", b"")
    refused(tmp_path / "x.zip", rf"x\.zip cannot be read \(a file more than {DEPTH} folders deep\)$")


def test_folders_that_may_not_be_read_are_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def iterdir(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    refused(pets, r"pets cannot be read \(Permission denied\)$")
    refused(pets, r"pets cannot be read \(Permission denied\)$", Folder.pictures)
    refused(pets / ("x" * 300), r"xxx cannot be read \(File name too long\)$")


def test_a_zip_is_listed_once(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    infolist = Archive.infolist

    def counted(archive: Archive) -> list[zipfile.ZipInfo]:
        calls.append(archive)
        return infolist(archive)

    zipped = pack(pets)
    monkeypatch.setattr(Archive, "infolist", counted)
    monkeypatch.setattr(Archive, "namelist", lambda *_: pytest.fail("all names were listed"))
    assert len(source(zipped).load().train) == 7
    assert len(calls) == 1


def test_names_in_a_zip_that_lead_out_of_it_and_links_are_passed_over(pets: Path) -> None:
    secret = paint(pets.parent / "secret.png")
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(pack(pets), "a") as archive:
        archive.writestr("../secret.png", secret.read_bytes())
        archive.writestr("cat/../../secret.png", secret.read_bytes())
        archive.writestr(str(secret), secret.read_bytes())
        archive.writestr(link, str(secret))
        archive.writestr("./dog//6.png", secret.read_bytes())
        archive.write(pets.with_suffix(".zip"), "dog/inner.zip")
    zipped = source(pets.with_suffix(".zip"))
    dataset = zipped.load()
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 13
    assert inspect(zipped).ignored == {"names that lead out of the .zip": 3, "links in the .zip": 1, ".zip": 1}


def test_a_zip_holds_whatever_is_in_the_folder(pets: Path) -> None:
    for name in ("cat/new\nline.png", "cat/esc\x1b[31m.png", "dog/日本.png", "dog/C++.PNG", "dog/.hidden.png", "deep/er/a.png"):
        paint(pets / name)
    with Index(pack(pets)) as index:
        root = Zipped(index, index.root)
        assert names(images_below(root), pets.with_suffix(".zip")) == names(images_below(pets), pets)
        assert [str(folder) for folder in listed(root).folders] == [f"{pets}.zip/{name}" for name in ("cat", "deep", "dog")]
        assert [content(image) for image in images_below(root)] == [content(image) for image in images_below(pets)]


def patched(path: Path, local: int, central: int, value: bytes) -> Path:
    """Change a field in both headers of the first member of a zip, by where it stands in either."""
    data = bytearray(path.read_bytes())
    for start, place in ((data.index(b"PK\3\4"), local), (data.index(b"PK\1\2"), central)):
        data[start + place : start + place + len(value)] = value
    path.write_bytes(data)
    return path


def test_zips_that_cannot_be_unpacked_within_bounds_are_refused(pets: Path) -> None:
    refused(patched(pack(pets), 6, 8, b"\1\0"), r"cat/0\.png is not a readable image \(encrypted\)$")
    refused(patched(pack(pets), 8, 10, b"\x09\0"), r"cat/0\.png is .*\(compressed by deflate64, only stored and deflate are read\)$")
    refused(pack(pets, compression=zipfile.ZIP_BZIP2), r"compressed by bzip2, only stored and deflate are read\)$")
    refused(
        patched(pack(pets), 22, 24, (2**31).to_bytes(4, "little")), r"\(it has 2,147,483,648 bytes, and an image may have 268,435,456\)$"
    )
    refused(patched(patched(pack(pets), 6, 8, b"\0\x08"), 30, 46, b"\xff\xfe"), r"pets\.zip cannot be read \('utf-8' codec")


def test_large_files_are_refused_before_they_are_read(pets: Path) -> None:
    with (pets / "dog" / "7.png").open("wb") as file:
        file.truncate(2**40)  # a sparse file
    refused(pets, r"dog/7\.png is not a readable image \(it has 1,099,511,627,776 bytes, and an image may have 268,435,456\)$")


def test_images_beyond_the_machines_memory_are_refused_first(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1024, "SC_PHYS_PAGES": 2}.__getitem__)
    refused(pets, r"pets takes 0\.0 GiB, and this machine has 0\.0 GiB of memory$", Folder.pictures)


def test_names_that_are_bytes_are_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        (pets / "\udcff").mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for file in (pets / "cat").iterdir():
        shutil.copy(file, pets / "\udcff")
    monkeypatch.setenv("XDG_CACHE_HOME", str(pets.parent))
    monkeypatch.setattr("gmmcli.data.mapped.IN_MEMORY", 1000)
    assert source(pets).load().class_names == ("cat", "dog", "\udcff")


def test_splits_are_named_once(pets: Path) -> None:
    for name in ("train", "Train", "val", "test"):
        shutil.copytree(pets, pets.parent / "split" / name)
    refused(pets.parent / "split", "has both 'Train' and 'train'$")
    shutil.rmtree(pets.parent / "split" / "Train")
    (pets / "dog").rename(pets / "Cat")
    assert source(pets).load().class_names == ("Cat", "cat")


def test_the_number_and_the_length_of_class_names_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLASSES >= 2**16
    monkeypatch.setattr("gmmcli.data.folder.CLASSES", 10)
    for path, folders in (
        ("many.zip", [f"{i}/a.png" for i in range(11)]),
        ("long.zip", [f"{'d' * (NAME + 1)}/a.png", "cat/a.png"]),
    ):
        with zipfile.ZipFile(tmp_path / path, "w") as archive:
            for name in folders:
                archive.writestr(name, b"")
    refused(tmp_path / "many.zip", r"many\.zip has 11 class folders")
    refused(tmp_path / "long.zip", r"long\.zip has 2 class folders, their names have up to 1,001 characters$")


def test_what_is_passed_over_is_counted(pets: Path) -> None:
    shutil.copytree(pets, pets.parent / "split" / "train")
    shutil.copytree(pets, pets.parent / "split" / "test")
    split = pets.parent / "split"
    for name in (
        "notes.txt",
        "loose.png",
        "extra/a.png",
        "train/.DS_Store",
        "train/cat/notes.TXT",
        "train/cat/old/a.png",
        "test/dog/README",
    ):
        paint(split / name)
    ignored = inspect(source(split)).ignored
    expected = {".txt": 2, "hidden": 1, "images outside of class folders": 1, "folders beside train": 1, "folders within class folders": 1}
    assert ignored == expected | {"without a suffix": 1}
    assert inspect(source(pets)).ignored == {}
