import json
from pathlib import Path

import numpy as np
import pytest
from animals import Gmmc, Trained
from PIL import Image

from gmmcli.data.digits import Digits


def test_ls_names_every_kind_as_it_is_written(gmmc: Gmmc) -> None:
    lines = gmmc("data", "ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["digits", "mnist", "cifar10", "cifar100", "svhn", "folder:PATH", "npz:PATH"]
    assert all(len(line.split()) > 3 for line in lines)


def test_check_counts_what_is_there(gmmc: Gmmc) -> None:
    lines = gmmc("data", "check", "digits").stdout.splitlines()
    assert lines[0] == "digits: 10 classes, 8 x 8 x 1"
    for line, (name, n) in zip(lines[1:], {"train": "1,257", "validation": "180", "test": "360"}.items(), strict=True):
        counts = Digits().load().split(name).labels.bincount()  # type: ignore[arg-type]
        assert " ".join(line.split()) == f"{name} {n} images, {counts.min()} to {counts.max()} per class"


def test_check_takes_a_recipe_or_a_source_with_its_path(gmmc: Gmmc, trained: Trained) -> None:
    by_recipe = json.loads(gmmc("data", "check", trained.recipe, "--json").stdout)
    by_path = json.loads(gmmc("data", "check", f"npz:{by_recipe['dataset']}", "--json").stdout)
    assert by_path == by_recipe
    values = by_recipe["values"]
    assert (values["shape"], values["classes"]) == ([1, 8, 8], ["cat", "dog", "fox"])
    assert values["splits"]["test"] == {"n": 30, "per_class": {"cat": 10, "dog": 10, "fox": 10}}


def test_check_heeds_overrides_of_a_recipe(gmmc: Gmmc, trained: Trained) -> None:
    document = json.loads(gmmc("data", "check", trained.recipe, "--set", "data.source.validation=0.5", "--json").stdout)
    assert document["values"]["splits"]["validation"]["n"] == 30


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("npz:gone.npz", 3, "no file at gone.npz"),
        ("folder:gone", 3, "no folder or .zip at gone"),
        ("fodler:gone", 2, "did you mean folder?"),
        ("npz", 2, "no dataset 'npz'"),
        ("digit_gen", 2, "did you mean digits_gen?"),
    ],
)
def test_what_is_missing_or_unknown(
    what: str, code: int, message: str, gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = gmmc("data", "check", what)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [([0] * 20, ["cat"], "has one class only"), ([0, 1] * 10, ["cat", "dog", "fox"], "no training image of class 'fox'")],
)
def test_what_no_classifier_can_learn_from_exits_3(labels: list[int], names: list[str], message: str, gmmc: Gmmc, tmp_path: Path) -> None:
    images, path = np.zeros((20, 8, 8), np.uint8), tmp_path / "few.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels, class_names=names)
    result = gmmc("data", "check", f"npz:{path}")
    assert (result.exit_code, result.stdout) == (3, "")
    assert message in result.stderr


def test_a_folder_is_checked_to_the_end_and_what_is_ignored_is_counted(gmmc: Gmmc, tmp_path: Path) -> None:
    for i in range(40):
        path = tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), i).save(path)
    (tmp_path / "pets" / "cat" / "notes.txt").touch()
    (tmp_path / "pets" / "dog" / ".DS_Store").touch()
    lines = gmmc("data", "check", f"folder:{tmp_path / 'pets'}").stdout.splitlines()
    assert lines[-1] == "ignored     1 .txt, 1 hidden"
    document = json.loads(gmmc("data", "check", f"folder:{tmp_path / 'pets'}", "--json").stdout)
    assert document["values"]["ignored"] == {".txt": 1, "hidden": 1}
    for name in ("cat/2.png", "dog/3.png"):
        (tmp_path / "pets" / name).write_bytes(b"junk")
    result = gmmc("data", "check", f"folder:{tmp_path / 'pets'}")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "cat/2.png is not a readable image" in result.stderr and "1 more will not do: dog/3.png" in result.stderr
