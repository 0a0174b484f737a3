"""Results go to stdout and messages to stderr, where ``--quiet`` leaves nothing."""

import shutil
from pathlib import Path

import publishing
import pytest
from animals import Gmmc, Trained, leaves
from matplotlib.figure import Figure
from PIL import Image
from typer.main import get_command

from gmmcli.cli.app import app

COMMANDS = dict(leaves(get_command(app)))
SILENT = {
    "watch": "watch",
    "recipes ls": "recipes ls",
    "recipes show": "recipes show digits_gen",
    "recipes check": "recipes check digits_gen",
    "recipes diff": "recipes diff digits_gen digits_dis",
    "data ls": "data ls",
    "runs ls": "runs ls",
    "runs show": "runs show",
    "runs check": "runs check",
    "runs repair": "runs repair",
    "runs gc": "runs gc",
}
"""Commands that have nothing to say but their result, and so no --quiet."""
TALKING = {
    "env": "env",
    "sample": "sample --n 2 --steps 1",
    "classify": "classify picture.png",
    "export": "export --no-onnx --out exported",
    "eval accuracy": "eval accuracy",
    "attack fgsm": "attack fgsm --loss margin",
    "data download": "data download mnist",
    "recipes new": "recipes new a.toml --data digits --force",
}
"""Commands that say something: which run it is, how far they are, what to do next."""


@pytest.fixture
def folder(gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run once more, to be written into, where nothing takes long: no figures, no timing, no web."""
    monkeypatch.setattr("gmmcli.evaluate.classify.LEAST", 5)  # it has six validation images
    monkeypatch.setattr("gmmcli.evaluate.plots.confusion", lambda *values: Figure())
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
    monkeypatch.setattr("gmmcli.train.plan.step_seconds", lambda *_: 0.1)
    publishing.mnist(monkeypatch, tmp_path / "server")
    Image.new("L", (8, 8), 99).save(tmp_path / "picture.png")
    monkeypatch.setenv("GMMC_RUNS_DIR", str(shutil.copytree(trained.runs_dir, tmp_path / "runs")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_in_json_and_is_quiet_or_has_nothing_to_say(name: str) -> None:
    options = {parameter.name for parameter in COMMANDS[name].params}
    assert "json" in options
    assert ("quiet" in options) != (name in SILENT)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", SILENT)
def test_a_command_without_quiet_says_nothing_but_its_result(name: str, gmmc: Gmmc) -> None:
    done = gmmc(*SILENT[name].split())
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("name", TALKING)
def test_quiet_leaves_the_result_and_nothing_else(name: str, gmmc: Gmmc, folder: Path) -> None:
    told = gmmc(*TALKING[name].split())
    assert told.exit_code == 0, told.stderr
    assert "gmmc: " in told.stderr
    assert "gmmc: " not in told.stdout
    shutil.rmtree(folder / "data", ignore_errors=True)  # to be downloaded again
    quiet = gmmc(*TALKING[name].split(), "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert quiet.stdout == told.stdout


def test_an_error_is_said_on_stderr_even_if_quiet(gmmc: Gmmc, folder: Path) -> None:
    done = gmmc("eval", "accuracy", "--run", "absent", "--quiet", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("gmmc: error: no run absent in ")
