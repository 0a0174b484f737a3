"""``gmmc export``: where the files go, and what is said."""

import json
from pathlib import Path

import pytest
from animals import Gmmc, Trained

from gmmcli.model_card import load_model


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has six validation images."""
    monkeypatch.setattr("gmmcli.evaluate.classify.LEAST", 5)


def test_the_files_and_their_paths(trained: Trained, gmmc: Gmmc, tmp_path: Path) -> None:
    result = gmmc("export", "--run", trained.path, "--out", tmp_path / "out", "--no-onnx")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(tmp_path / "out" / name) for name in ("model.safetensors", "README.md")]
    assert load_model(tmp_path / "out" / "model.safetensors")[1].class_names == ("cat", "dog", "fox")
    assert "Classes: cat, dog, fox." in (tmp_path / "out" / "README.md").read_text()


def test_json_has_the_files_and_what_verdicts_rest_on(trained: Trained, gmmc: Gmmc, tmp_path: Path) -> None:
    document = json.loads(gmmc("export", "--run", trained.path, "--out", tmp_path, "--no-onnx", "--json").stdout)
    assert document["values"] == {"files": [str(tmp_path / name) for name in ("model.safetensors", "README.md")]}
    assert document["protocol"]["n_validation"] == 6


def test_too_few_validation_images(trained: Trained, gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.evaluate.classify.LEAST", 20)
    result = gmmc("export", "--run", trained.path, "--out", tmp_path / "out", "--no-onnx")
    assert result.exit_code == 3
    assert "has 6 validation images" in result.stderr
    assert not (tmp_path / "out").exists()
