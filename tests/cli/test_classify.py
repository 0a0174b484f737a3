"""``gmmc classify``: which images, in which form the answers, and what goes wrong."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from animals import Gmmc, Trained
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from gmmcli.cli.app import app
from gmmcli.evaluate import classify


@pytest.fixture
def photos(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two of the test images as pictures, one larger and in colour, the other in a folder below; the run has few validation images."""
    monkeypatch.setattr(classify, "LEAST", 5)
    images = np.load(trained.recipe.with_name("animals.npz"))["test_images"]
    (tmp_path / "below").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "below" / "a.png")
    Image.fromarray(images[1]).resize((24, 24), Image.Resampling.NEAREST).convert("RGB").save(tmp_path / "b.bmp")
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tell(gmmc: Gmmc, trained: Trained) -> Gmmc:
    """The command, on the trained run."""
    return lambda *words: gmmc("classify", *words, "--run", trained.path)


def images_of(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [one["image"] for one in json.loads(result.stdout)["values"]]


@pytest.mark.usefixtures("photos")
def test_files_folders_and_patterns_are_found_each_once(tell: Gmmc) -> None:
    assert images_of(tell("b.bmp", "--json")) == ["b.bmp"]
    assert images_of(tell(".", "--json")) == ["b.bmp", "below/a.png"]
    assert images_of(tell("*/*.png", "b.bmp", "b.bmp", "--json")) == ["below/a.png", "b.bmp"]


def test_standard_input_is_one_image(photos: Path, trained: Trained, tell: Gmmc) -> None:
    content = (photos / "b.bmp").read_bytes()
    words = ["classify", "-", "--run", str(trained.path), "--json"]
    piped = json.loads(CliRunner().invoke(app, words, input=content, catch_exceptions=False).stdout)["values"]
    read = json.loads(tell("b.bmp", "--json").stdout)["values"]
    assert piped == [read[0] | {"image": "-"}]


def test_the_three_forms_say_the_same(photos: Path, tell: Gmmc) -> None:
    document = json.loads(tell(photos, "--json").stdout)
    assert document["command"] == "classify"
    assert document["n"] == 2
    assert document["protocol"]["true_positive_rate"] == 0.95
    rows = list(csv.DictReader(io.StringIO(tell(photos, "--csv").stdout)))
    assert [row["label"] for row in rows] == [one["label"] for one in document["values"]]
    assert [float(row["probability"]) for row in rows] == [one["probability"] for one in document["values"]]
    lines = [line.split() for line in tell(photos).stdout.splitlines() if str(photos)[:8] in line]
    verdicts = ["known" if one["known"] else "unknown" for one in document["values"]]
    assert [(line[-3], line[-1]) for line in lines] == [(one["label"], v) for one, v in zip(document["values"], verdicts, strict=True)]


def test_a_broken_file_is_named_and_the_others_are_answered(photos: Path, tell: Gmmc) -> None:
    (photos / "a.jpg").write_text("not a picture")
    result = tell(photos, "--json")
    assert result.exit_code == 3
    assert [one["image"] for one in json.loads(result.stdout)["values"]] == [str(photos / "b.bmp"), str(photos / "below" / "a.png")]
    assert "a.jpg is not a readable image" in result.stderr
    assert "1 of 3 files could not be read as images" in result.stderr


def test_nothing_but_broken_files(photos: Path, tell: Gmmc) -> None:
    (photos / "a.jpg").write_text("not a picture")
    result = tell("a.jpg", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["values"] == []


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nothing.png"], 3, "no image at nothing.png"),
        (["*.gif"], 3, "no image at *.gif"),
        (["b.bmp", "--csv", "--json"], 2, "--csv and --json exclude each other"),
        (["b.bmp", "--csv", "--explain"], 2, "--explain has no --csv form"),
        (["b.bmp", "--label", "cat"], 2, "--label is an option of --explain"),
        (["b.bmp", "--out", "x.png"], 2, "--out is an option of --explain"),
        (["b.bmp", "--explain", "--label", "cow"], 2, "no class 'cow'"),
        (["b.bmp", "--explain", "--label", "all"], 2, "an image has one class"),
        ([".", "--explain", "--out", "x.png"], 2, "2 images have a picture each"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_errors(tell: Gmmc, words: list[str], code: int, sentence: str) -> None:
    result = tell(*words)
    assert result.exit_code == code
    assert sentence in result.stderr


def test_a_run_without_enough_validation_images_is_refused(photos: Path, tell: Gmmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "LEAST", 20)
    result = tell(photos)
    assert result.exit_code == 3
    assert "has 6 validation images, and at least 20 are needed" in result.stderr


def test_standard_input_that_is_no_image_is_called_so(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "LEAST", 5)
    result = CliRunner().invoke(app, ["classify", "-", "--run", str(trained.path)], input=b"junk", catch_exceptions=False)
    assert result.exit_code == 3
    assert "standard input is not a readable image" in result.stderr


@pytest.mark.usefixtures("photos")
def test_an_explanation_is_a_table_a_picture_and_json(tell: Gmmc) -> None:
    label = "dog" if json.loads(tell("b.bmp", "--json").stdout)["values"][0]["label"] == "cat" else "cat"
    words = ["b.bmp", "--explain", "--label", label, "--out", "why.png"]
    document = json.loads(tell(*words, "--json").stdout)
    (value,) = document["values"]
    assert value["path"] == "why.png"
    assert document["protocol"]["explanation"]["steps"] == 200
    explanation = value["explanation"]
    assert [*explanation] == ["nearest", "classes", "counterfactual"]
    assert len(explanation["nearest"]) == 5
    assert explanation["counterfactual"]["towards"] == label
    assert explanation["classes"][0]["label"] == value["label"]
    Path("why.png").unlink()
    result = tell(*words)
    assert result.stdout.splitlines()[-1] == "why.png"
    assert "nearest training images" in result.stdout and "what would change" in result.stdout
    with Image.open("why.png") as picture:
        assert picture.height > 8 * 64


def test_pictures_of_several_images_are_numbered(photos: Path, tell: Gmmc) -> None:
    (photos / "whys").mkdir()
    (photos / "below" / "b.png").write_bytes((photos / "below" / "a.png").read_bytes())
    assert images_of(tell("b.bmp", "below/b.png", "--explain", "--out", "whys", "--json")) == ["b.bmp", "below/b.png"]
    assert sorted(path.name for path in (photos / "whys").iterdir()) == ["explained-1-b.png", "explained-2-b.png"]


def test_without_the_runs_data_nothing_can_be_explained(photos: Path, trained: Trained, gmmc: Gmmc) -> None:
    moved = shutil.copytree(trained.path, photos / "moved", ignore=shutil.ignore_patterns("samples"))  # other tests write them
    recipe = (moved / "recipe.toml").read_text()
    (moved / "recipe.toml").write_text(recipe.replace("animals.npz", "gone.npz"))
    result = gmmc("classify", "b.bmp", "--explain", "--run", moved)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "gone.npz" in result.stderr
    assert not (photos / "moved" / "samples").exists()
