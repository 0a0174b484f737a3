"""What is told of pictures that can be read."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pets import about, found, pets, saved, scene, source
from PIL import Image

from gmmcli.data import findings
from gmmcli.data.inspection import inspect
from gmmcli.evaluate.classify import LEAST


def test_identical_and_similar_images_by_where_they_are(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    pets(root / "train"), pets(root / "test", 6)
    first = Image.open(root / "train" / "cat" / "00.png")
    saved(first, root / "train" / "cat" / "again.bmp")  # identical pixels in another file
    shutil.copy(root / "train" / "cat" / "01.png", root / "test" / "cat" / "leak.png")
    shutil.copy(root / "train" / "cat" / "02.png", root / "train" / "dog" / "wrong.png")
    saved(Image.open(root / "train" / "dog" / "03.png").resize((90, 90)), root / "test" / "dog" / "larger.jpg", quality=60)
    report = inspect(source(root))
    groups = found(report)
    assert groups["identical-labels"] == [["train/cat/02.png", "train/dog/wrong.png"]]
    assert ["train/cat/01.png", "test/cat/leak.png"] in groups["identical-splits"]
    assert ["train/dog/03.png", "test/dog/larger.jpg"] in groups["similar-splits"]
    assert about(report, "identical-splits")["test/cat/leak.png"] == "test"
    again = ["train/cat/00.png", "train/cat/again.bmp"]
    assert again in groups.get("identical-split", []) + groups["identical-splits"]  # validation is dealt from train


def test_too_many_images_are_compared_exactly_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "MOST", 20)
    assert "not-compared" in found(inspect(source(pets(tmp_path / "pets"))))


def test_sizes_and_shapes_that_lose_or_gain_much(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    saved(scene((15, 40)), folder / "cat" / "small.png"), saved(scene((16, 16)), folder / "cat" / "half.png")
    saved(scene((64, 130)), folder / "dog" / "long.png"), saved(scene((64, 128)), folder / "dog" / "double.png")
    report = inspect(source(folder))
    assert about(report, "small") == {"cat/small.png": "15 x 40"}
    assert about(report, "elongated") == {"cat/small.png": "15 x 40", "dog/long.png": "64 x 130"}
    (text,) = [one.text for one in report.findings if one.kind == "elongated"]
    assert "resized to 32, the centre cropped" in text
    report = inspect(source(folder, size=0))
    assert list(about(report, "other-size")) == ["cat/half.png", "cat/small.png", "dog/double.png", "dog/long.png"]
    assert report.findings[0].problem


def test_grey_among_colour_of_8_and_16_bits_or_everywhere(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    grey = scene().convert("L")
    saved(grey, folder / "cat" / "grey.png")
    saved(Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257), folder / "cat" / "deep.png")
    saved(scene().convert("L").convert("RGB"), folder / "dog" / "grey.jpg")
    assert found(inspect(source(folder)))["grey"] == [["cat/deep.png"], ["cat/grey.png"], ["dog/grey.jpg"]]
    assert "grey" not in found(inspect(source(folder, channels=1)))
    for path in folder.glob("*/??.png"):
        Image.open(path).convert("L").save(path)
    (finding,) = [one for one in inspect(source(folder)).findings if one.kind == "grey"]
    assert finding.text.startswith("all images are grey") and not finding.groups


def test_classes_that_are_unlike_and_splits_that_are_small(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets", 4)
    for i in range(40):
        saved(scene(), folder / "cat" / f"more{i}.png")
    (finding,) = [one for one in inspect(source(folder)).findings if one.kind == "imbalance"]
    assert "cat has 25 training images, dog 2" in finding.text
    assert findings.FEW == LEAST
    assert "few-validation" not in found(inspect(source(pets(tmp_path / "many", 60))))
    few = pets(tmp_path / "few", 40)
    for i in range(3):
        saved(scene(), few / "elk" / f"{i}.png")
    assert found(inspect(replace(source(few), validation=0.1)))["no-validation"] == [["elk"]]
