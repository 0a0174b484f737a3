"""What commands print fits a terminal of forty columns, word by word as in a pipe, which has a line for each record."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from animals import Trained
from matplotlib.figure import Figure
from PIL import Image
from typer.main import get_command

from gmmcli.cli.app import app
from gmmcli.cli.options import note

ROOT = get_command(app)
NARROW = 40
COMMANDS: dict[str, str] = {
    "gmmc": "",
    "runs ls": "runs ls",
    "runs ls --wide": "runs ls --wide",
    "runs show": "runs show",
    "runs check": "runs check",
    "recipes ls": "recipes ls",
    "recipes check": "recipes check digits_gen",
    "recipes diff": "recipes diff digits_gen digits_dis",
    "data ls": "data ls",
    "data check": "data check RECIPE",
    "eval accuracy": "eval accuracy",
    "eval ood": "eval ood --against uniform",
    "attack fgsm": "attack fgsm --eps 4/255,8/255",
    "classify": "classify PICTURE",
    "classify --explain": "classify PICTURE --explain --label fox",
    "study --dry-run": "study digits --dry-run",
    "report": "report",
    "watch": "watch",
    "env": "env",
}
AS_ASKED = {"runs ls --wide"}
"""As wide as it is, whatever the terminal."""


class Terminal(StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def said(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a command on a copy of the run, its figures left empty, and return what it prints on a stream of so many columns."""
    folder = tmp_path_factory.mktemp("widths")
    shutil.copytree(trained.runs_dir, folder / "runs")
    Image.new("L", (8, 8), 99).save(folder / "sea-lion.png")
    places = {"PICTURE": str(folder / "sea-lion.png"), "RECIPE": str(trained.recipe)}

    def run(command: str, stream: StringIO, **environment: str) -> str:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(stream):
            for name in ("NO_COLOR", "GMMC_RUN", "FORCE_COLOR", "TTY_COMPATIBLE"):
                patch.delenv(name, raising=False)
            for name, value in {"COLUMNS": str(NARROW), "GMMC_RUNS_DIR": str(folder / "runs"), **environment}.items():
                patch.setenv(name, value)
            patch.setattr("gmmcli.evaluate.classify.LEAST", 5)  # the run has six validation images
            for figure in ("confusion", "histograms"):
                patch.setattr(f"gmmcli.evaluate.plots.{figure}", lambda *values: Figure())
            patch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
            ROOT.main([places.get(word, word) for word in command.split()], prog_name="gmmc", standalone_mode=False)
        return stream.getvalue()

    return run


def words(text: str) -> Counter[str]:
    """Whatever stands between spaces and colons, which headings have where each value has one."""
    return Counter(re.split(r"[\s:]+", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_narrow_terminal_every_word_of_a_pipe_stands_whole_in_lines_that_fit(name: str, said: Callable[..., str]) -> None:
    piped = said(COMMANDS[name], StringIO(), TERM="xterm-256color")
    narrow = said(COMMANDS[name], Terminal(), TERM="dumb" if name == "watch" else "xterm-256color")  # it draws on others
    assert not re.search("[\x1b…]", piped + narrow)
    assert not words(piped) - words(narrow)
    assert narrow == piped or max(map(len, piped.splitlines())) > NARROW
    if name not in AS_ASKED:
        for line in narrow.splitlines():
            assert len(line) <= NARROW or " " not in line.strip(), line


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_a_run_is_watched_without_colours_where_there_are_to_be_none(name: str, value: str, said: Callable[..., str]) -> None:
    shown = said("watch", Terminal(), **{"TERM": "xterm-256color", name: value})
    assert "finished" in shown
    assert not re.search(r"\x1b\[[\d;]*m", shown)


def test_an_error_is_broken_between_words_and_its_command_named_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))
    with redirect_stderr(Terminal()) as shown:
        note("error: no run 2026-01-01T000000Z-a-long-name-of-a-run-that-is-not-there in runs")
    assert shown.getvalue().splitlines() == ["gmmc: error: no run", "2026-01-01T000000Z-a-long-name-of-a-run-that-is-not-there", "in runs"]
