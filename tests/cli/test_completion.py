import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from animals import Trained
from typer.testing import CliRunner

from gmmcli.attacks.algorithms import ATTACKS
from gmmcli.attacks.losses import LOSSES
from gmmcli.cli import completion
from gmmcli.cli.app import app
from gmmcli.data.outliers import MADE
from gmmcli.data.sources import SOURCES, usage
from gmmcli.metrics.scores import ALL, SCORES
from gmmcli.shelf import shipped


def completed(words: str, **environment: str) -> list[str]:
    """What bash is offered after these words."""
    asked = {"COMP_WORDS": f"gmmc {words}", "COMP_CWORD": str(len(f"gmmc {words}".split(" ")) - 1), "_GMMC_COMPLETE": "complete_bash"}
    done = CliRunner().invoke(app, [], env=asked | environment, prog_name="gmmc", catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def runs(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a run in ./runs; a copy of it, which is older, lies in a study."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMMC_RUN", raising=False)
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)
    shutil.copytree(trained.runs_dir, "runs")
    shutil.copytree(trained.path, "runs/study-x/2001-01-01T000000Z-old")
    return trained.path.name


@pytest.mark.parametrize(
    "words",
    [
        "eval accuracy --run ",
        "runs show ",
        "runs gc --run ",
        "train --resume --run ",
        "attack audit --transfer ",
        "watch --run ",
        "recipes new --init-from ",
    ],
)
def test_runs_are_completed_by_recipe_id_and_path(words: str, runs: str) -> None:
    assert completed(words) == ["animals", runs, "runs/study-x/2001-01-01T000000Z-old"]
    assert completed(f"{words}2") == [runs]
    assert completed(f"{words}zzz") == []


def test_runs_are_those_of_the_directory_that_is_meant(runs: str) -> None:
    assert completed("runs show --runs-dir runs/study-x 2") == ["2001-01-01T000000Z-old"]
    assert completed("runs show 2", GMMC_RUNS_DIR="runs/study-x") == ["2001-01-01T000000Z-old"]
    assert completed("runs show --runs-dir zzz ") == []


@pytest.mark.parametrize(
    "words", ["sample --class ", "sample --run animals --class ", "morph --from cat --to ", "restore x.png --class ", "classify x --label "]
)
@pytest.mark.usefixtures("runs")
def test_classes_are_those_of_the_run(words: str) -> None:
    assert completed(words) == ["all", "cat", "dog", "fox"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]"])
def test_a_model_that_cannot_be_read_has_no_classes_and_no_traceback(content: bytes, runs: str) -> None:
    for path in Path("runs", runs).glob("checkpoints/*/model.safetensors"):
        path.write_bytes(content)
    assert completed("sample --class ") == []
    assert completed("sample --run zzz --class ") == []


def test_recipes_and_studies_are_completed_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits_of_mine.toml").touch()
    Path("deep/er").mkdir(parents=True)
    Path("deep/a.toml").touch()
    for words in ("train ", "recipes show ", "recipes diff svhn_gen ", "recipes check a "):
        assert completed(words) == [*shipped(), "deep/", "digits_of_mine.toml"]
        assert completed(f"{words}deep/") == ["deep/a.toml", "deep/er/"]
    assert completed("study digits") == ["digits", "digits_of_mine.toml"]


def test_images_are_completed_by_the_files_that_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos.zip", "photos.npz", "photos.txt"):
        Path(name).touch()
    Path("photos/cat").mkdir(parents=True)
    for words in ("recipes new --data ", "data check ", "import x.pt --data "):
        assert completed(f"{words}ph") == ["photos/", "photos.npz", "photos.zip"]
        assert completed(f"{words}photos/") == ["photos/cat/"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("eval ood --score ", [ALL, *SCORES]),
        ("eval accuracy --split ", ["train", "validation", "test"]),
        ("eval accuracy --data ", [*completion.SOURCES]),
        ("eval ood --against ", [*completion.SETS]),
        ("attack pgd --loss ", [*LOSSES]),
        ("attack ", [*ATTACKS, "cw", "audit"]),
        ("tsne --features p", ["pixels"]),
        ("data check sv", ["svhn"]),
        ("recipes new --data sv", ["svhn"]),
        ("import x.pt --data sv", ["svhn"]),
        ("recipes new --for ", ["classify", "generate", "both"]),
        ("recipes new --time ", ["10m", "1h", "8h", "2d"]),
    ],
)
def test_names_are_completed(words: str, names: list[str]) -> None:
    assert completed(words) == names


def test_the_names_that_are_written_down_are_those_of_the_registries() -> None:
    assert list(completion.SOURCES) == [usage(kind).removesuffix("PATH") for kind in SOURCES]
    assert {*completion.SETS} == {"noise", "celeba", *MADE, *completion.SOURCES}
    assert list(completion.SCORES) == [ALL, *SCORES]
    assert list(completion.LOSSES) == list(LOSSES)


def test_completing_imports_no_torch(runs: str) -> None:
    code = """
import sys
from gmmcli.cli.app import app
try:
    app(prog_name="gmmc")
finally:
    print([name for name in ("torch", "numpy", "rich") if name in sys.modules])
"""
    asked = {"COMP_WORDS": "gmmc sample --class c", "COMP_CWORD": "3", "_GMMC_COMPLETE": "complete_bash"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["cat", "[]"], "")


def test_completion_is_installed_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # the tests' shell is not the user's
    done = CliRunner().invoke(app, ["--install-completion", "bash"], prog_name="gmmc")
    assert done.exit_code == 0, done.output
    assert "_GMMC_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "gmmc.sh").read_text()
    assert "gmmc.sh" in (tmp_path / ".bashrc").read_text()
