"""Everything odd about a folder of pictures is told in one go."""

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pets import about, found, pets, saved, scene, source
from PIL import Image

from gmmcli.data.inspection import inspect
from gmmcli.data.tree import Tree
from gmmcli.errors import DataError

FEW = {"few-validation": list[list[str]]()}
"""What is told of all these small folders."""


def test_good_pictures_of_every_kind_are_no_finding(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(scene(), folder / "cat" / "turned.jpg", exif=exif, quality=95)
    saved(scene().convert("RGBA"), folder / "cat" / "clear.png")
    saved(scene().convert("CMYK"), folder / "dog" / "print.jpg")
    saved(scene().quantize(16), folder / "dog" / "palette.png", transparency=bytes(16))
    report = inspect(source(folder))
    assert found(report) == FEW and not report.broken and report.n == 28


def test_the_splits_are_those_of_training(tmp_path: Path) -> None:
    folder = source(pets(tmp_path / "pets"))
    report, dataset = inspect(folder), folder.load()
    assert report.dataset and report.dataset.shape == dataset.shape
    files = sorted((tmp_path / "pets").glob("*/*.png"))
    for name in ("train", "validation", "test"):
        dealt, loaded = report.dataset.split(name), dataset.split(name)  # type: ignore[arg-type]
        assert dealt.labels.tolist() == loaded.labels.tolist()
        for row, image in zip(dealt.images.rows.tolist(), loaded.batch()[0], strict=True):  # type: ignore[union-attr]
            assert np.array_equal(np.asarray(Image.open(files[row])), image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("zipped", [False, True])
def test_all_unreadable_images_are_told_with_the_reason(zipped: bool, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    whole = saved(scene((200, 200)), folder / "cat" / "whole.jpg").read_bytes()
    for name, content in (("cat/cut.jpg", whole[: len(whole) // 2]), ("cat/empty.png", b""), ("dog/text.png", b"text")):
        (folder / name).write_bytes(content)
    path = Path(shutil.make_archive(str(folder), "zip", folder)) if zipped else folder
    report = inspect(source(path))
    reasons = about(report, "unreadable")
    assert list(reasons) == ["cat/cut.jpg", "cat/empty.png", "dog/text.png"]
    assert "truncated" in reasons["cat/cut.jpg"] and reasons["dog/text.png"] == "of no format that is read"
    assert report.broken == ([] if zipped else [folder / name for name in reasons])
    assert report.dataset and report.n == 28


def test_what_the_system_refuses_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pets(tmp_path / "pets")
    (folder / "cat" / "gone.png").symlink_to("nowhere")

    def content(file: Tree) -> bytes:
        if file.name in ("00.png", "01.png"):
            raise PermissionError(13, "Permission denied") if file.name == "00.png" else MemoryError
        return Path(str(file)).read_bytes()

    monkeypatch.setattr("gmmcli.data.decoding.content", content)
    report = inspect(source(folder))
    refused = ["Permission denied", "MemoryError"]
    assert list(about(report, "unreadable").values()) == [*refused, "No such file or directory", *refused]
    assert report.broken == []


def test_what_training_refuses_is_told_beside_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    pets(root / "train"), pets(root / "test", 3)
    shutil.rmtree(root / "test" / "cat")
    (root / "train" / "elk").mkdir()
    saved(scene(), root / "test" / "fox" / "0.png")
    (root / "train" / "dog" / "bad.png").write_bytes(b"junk")
    report = inspect(source(root))
    assert found(report)["unreadable"] == [["train/dog/bad.png"]]
    assert found(report)["empty"] == [["train/elk"], ["test/cat"], ["test/elk"]]
    assert found(report)["stranger"] == [["test/fox"]]
    assert report.dataset is None and all(one.problem for one in report.findings[:3])
    with pytest.raises(DataError):
        source(root).load()


@pytest.mark.parametrize(("remove", "reason"), [("dog", "one class only"), ("dog/0[1-9]*", "image .* only one with label")])
def test_a_folder_that_cannot_be_dealt_says_why(remove: str, reason: str, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets", 9)
    for path in [*folder.glob(remove)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = inspect(source(folder))
    assert report.dataset is None
    (finding,) = [one for one in report.findings if one.problem]
    assert finding.kind == "refused"
    assert re.search(reason, finding.text)


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    saved(scene(), folder / "cat" / "old" / "a.png"), saved(scene(), folder / "loose.png")
    (folder / "dog" / "notes.txt").touch()
    expected = {"loose.png": "images outside of class folders", "cat/old": "folders within class folders", "dog/notes.txt": ".txt"}
    assert about(inspect(source(folder)), "ignored") == expected
    with zipfile.ZipFile(shutil.make_archive(str(folder), "zip", folder), "a") as archive:
        archive.writestr("../out.png", b"")
    assert about(inspect(source(folder.with_suffix(".zip"))), "ignored") == expected | {"../out.png": "names that lead out of the .zip"}
