import json
import shutil
from pathlib import Path

import numpy as np
import publishing
import pytest
from animals import Gmmc, Trained
from PIL import Image

from gmmcli.data import remote
from gmmcli.data.digits import Digits
from gmmcli.data.downloaded import MNIST


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
    assert result.exit_code == 3
    unreadable = [
        "problem: 2 of 40 images cannot be read",
        *(f"  {name} (of no format that is read)" for name in ("cat/2.png", "dog/3.png")),
    ]
    assert result.stdout.splitlines()[:3] == unreadable
    assert "error: " in result.stderr and "2 of 40 images cannot be read" in result.stderr and "--fix" in result.stderr


def pets(root: Path, *names: str, n: int = 30) -> Path:
    """Two classes of plain pictures, each of another grey, and more files that are none."""
    for i in range(n):
        path = root / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (i, 0, 0)).save(path)
    for name in names:
        (root / name).write_bytes(b"junk")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_named_by_its_path_alone(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pets(Path("my photos"))
    assert gmmc("data", "check", "my photos").stdout == gmmc("data", "check", "folder:my photos").stdout != ""
    shutil.make_archive("pets", "zip", "my photos")
    assert "pets.zip: 2 classes" in gmmc("data", "check", "pets.zip").stdout
    Path("digits").mkdir()
    assert gmmc("data", "check", "digits").stdout.startswith("digits: 10 classes")
    result = gmmc("data", "check", "your photos")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no dataset, folder or recipe 'your photos'" in result.stderr and "digits_gen" not in result.stderr


def test_a_check_changes_nothing_unless_asked(gmmc: Gmmc, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets", "cat/a.png", "dog/b.jpg")
    before = contents(tmp_path)
    assert gmmc("data", "check", folder).exit_code == 3
    result = gmmc("data", "check", folder, "--fix", "--dry-run")
    assert result.exit_code == 3
    assert result.stdout.splitlines()[-2:] == [
        f"would move {folder}/{name} to {folder}.set-aside/{name}" for name in ("cat/a.png", "dog/b.jpg")
    ]
    assert contents(tmp_path) == before
    result = gmmc("data", "check", folder, "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")


def test_broken_files_alone_are_set_aside_and_nothing_is_lost(gmmc: Gmmc, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets", "cat/a.png", "cat/notes.txt")
    before = contents(folder)
    result = gmmc("data", "check", folder, "--fix")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"moved {folder}/cat/a.png to {folder}.set-aside/cat/a.png"
    assert contents(tmp_path / "pets.set-aside") == {"cat/a.png": b"junk"}
    assert contents(folder) == {name: data for name, data in before.items() if name != "cat/a.png"}
    (folder / "cat" / "a.png").write_bytes(b"other junk")
    document = json.loads(gmmc("data", "check", folder, "--fix", "--json").stdout)
    assert document["values"]["moved"] == [{"file": f"{folder}/cat/a.png", "to": f"{folder}.set-aside/cat/a-2.png"}]
    assert contents(tmp_path / "pets.set-aside") == {"cat/a.png": b"junk", "cat/a-2.png": b"other junk"}
    assert gmmc("data", "check", folder).exit_code == 0


def test_fix_exits_3_where_something_is_left_and_refuses_what_is_no_folder(gmmc: Gmmc, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets", "cat/a.png")
    (folder / "dog" / "gone.png").symlink_to("nowhere")
    assert gmmc("data", "check", folder, "--fix").exit_code == 3
    assert (folder / "dog" / "gone.png").is_symlink() and not (folder / "cat" / "a.png").exists()
    zipped = shutil.make_archive(str(tmp_path / "pets"), "zip", folder / "cat")
    for what in (zipped, "digits"):
        assert gmmc("data", "check", what, "--fix").exit_code == 2


def test_json_names_every_file_and_the_terminal_a_few(gmmc: Gmmc, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets", *(f"cat/bad{i:02}.png" for i in range(25)))
    result = gmmc("data", "check", folder, "--json")
    assert result.exit_code == 3
    finding = json.loads(result.stdout)["values"]["findings"][0]
    assert (finding["kind"], finding["problem"], finding["n"]) == ("unreadable", True, 25)
    assert finding["files"][24] == {"file": "cat/bad24.png", "about": "of no format that is read", "group": 24}
    lines = gmmc("data", "check", folder).stdout.splitlines()
    assert lines[11] == "  and 15 more, which --json names"


def test_a_dry_download_says_what_is_there_without_the_network(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing.mnist(monkeypatch, tmp_path / "server")
    gmmc("data", "download", "mnist", "--root", tmp_path / "data")
    (gone, damaged, *_) = MNIST.published.files
    (tmp_path / "data" / gone.place).unlink()
    (tmp_path / "data" / damaged.place).write_bytes(b"junk")
    monkeypatch.setattr(remote, "urlopen", lambda *_, **__: pytest.fail("the network was used"))
    before = contents(tmp_path / "data")
    lines = gmmc("data", "download", "mnist", "--root", tmp_path / "data", "--dry-run").stdout.splitlines()
    for line, file, state in zip(lines, MNIST.published.files, ["would be downloaded"] * 2 + ["is there"] * 2, strict=True):
        assert line == f"{tmp_path / 'data' / file.place}  {file.size:,} bytes, {state}, {file.url}"
    document = json.loads(gmmc("data", "download", "mnist", "--root", tmp_path / "data", "--dry-run", "--json").stdout)
    assert document["dry_run"] and [file["downloaded"] for file in document["values"]["files"]] == [True, True, False, False]
    assert contents(tmp_path / "data") == before
