"""``gmmc restore`` and ``gmmc morph``: files in, files out, and what is refused."""

import json
from pathlib import Path

import pytest
from animals import Gmmc, Trained
from PIL import Image

from gmmcli.core.chains import Chains


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, a mask of its right half, and one of nothing."""
    monkeypatch.setattr(Chains, "lifetime", 3)
    Image.new("L", (8, 8), 99).save(tmp_path / "a.png")
    mask = Image.new("L", (8, 8), 0)
    mask.save(tmp_path / "nothing.png")
    mask.paste(255, (4, 0, 8, 8))
    mask.save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [["--mask", "mask.png", "--class", "cat", "--n", "2"], ["--denoise", "0.1"]])
@pytest.mark.usefixtures("files")
def test_what_was_given_and_the_answers_stand_side_by_side(gmmc: Gmmc, trained: Trained, words: list[str]) -> None:
    result = gmmc("restore", "a.png", *words, "--run", trained.path, "--out", "out.png", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["values"] == {"image": "a.png", "path": "out.png"}
    assert document["protocol"]["seed"] == 1
    with Image.open("out.png") as picture:
        assert picture.width > 96


def test_a_morph_moves_there_and_back(gmmc: Gmmc, trained: Trained, files: Path) -> None:
    words = ["morph", "--from", "cat", "--to", "2", "--n", "3", "--frames", "4", "--run", trained.path]
    result = gmmc(*words, "--out", "m.gif")
    assert (result.exit_code, result.stdout) == (0, "m.gif\n"), result.stderr
    with Image.open("m.gif") as picture:
        assert (picture.n_frames, picture.size) == (6, (3 * 96, 96))  # type: ignore[attr-defined]
    assert gmmc(*words, "--out", "m.png").exit_code == 0
    assert (files / "m.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["restore", "a.png"], 2, "needs mask or denoise, one of them"),
        (["restore", "a.png", "--mask", "mask.png", "--denoise", "0.1"], 2, "one of them"),
        (["restore", "a.png", "--mask", "nothing.png"], 2, "nothing.png is white nowhere"),
        (["restore", "gone.png", "--denoise", "0.1"], 3, "gone.png is not a readable image"),
        (["restore", "a.png", "--denoise", "0.1", "--class", "cow"], 2, "no class 'cow'"),
        (["restore", "a.png", "--denoise", "0.1", "--class", "all"], 2, "an image has one class"),
        (["restore", "a.png", "--denoise", "0.1", "--out", "x.txt"], 2, "cannot be a .txt"),
        (["morph", "--from", "cat", "--to", "cat"], 2, "must be two classes"),
        (["morph", "--from", "all", "--to", "cat"], 2, "must be two classes"),
    ],
)
@pytest.mark.usefixtures("files")
def test_what_is_refused(gmmc: Gmmc, trained: Trained, words: list[str], code: int, sentence: str) -> None:
    result = gmmc(*words, "--run", trained.path)
    assert result.exit_code == code
    assert sentence in result.stderr
