import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer
from animals import Gmmc, Trained, leaves
from typer.main import get_command
from typer.testing import CliRunner

from gmmcli import __version__, errors
from gmmcli.cli.app import Boundary, app

COMMANDS = dict(leaves(get_command(app)))
HELP = """
import sys
from typer.testing import CliRunner
from gmmcli.cli.app import app
for words in {words}:
    result = CliRunner().invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.stdout, (words, result.output)
    assert "torch" not in sys.modules, words
"""


def test_every_help_works_and_imports_no_torch() -> None:
    groups = {name.split()[0] for name in COMMANDS}
    code = HELP.format(words=sorted({"", *groups, *COMMANDS}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example_of_itself(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert command.epilog
    assert command.epilog.startswith("Example")
    assert f"gmmc {name}" in command.epilog
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


JSON: dict[str, Callable[[Trained], list[object]]] = {
    "train": lambda run: ["train", "--resume", "--runs-dir", run.runs_dir],
    "sample": lambda run: ["sample", "--runs-dir", run.runs_dir, "--n", 2, "--steps", 1],
    "recipes ls": lambda run: ["recipes", "ls"],
    "recipes show": lambda run: ["recipes", "show", run.recipe],
    "recipes check": lambda run: ["recipes", "check", run.recipe],
    "recipes diff": lambda run: ["recipes", "diff", run.recipe, "digits_gen"],
    "data ls": lambda run: ["data", "ls"],
    "data check": lambda run: ["data", "check", run.recipe],
    "runs ls": lambda run: ["runs", "ls", "--runs-dir", run.runs_dir],
    "runs show": lambda run: ["runs", "show", "--runs-dir", run.runs_dir],
}


@pytest.mark.parametrize("name", [*JSON, *sorted(COMMANDS.keys() - JSON.keys())])
def test_json_is_exactly_one_object_on_stdout(name: str, gmmc: Gmmc, trained: Trained) -> None:
    result = gmmc(*JSON[name](trained), "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert document["command"] == name


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.GmmcError("no", "try this"), 1),
        (errors.RunError("no", "try this"), 1),
        (errors.RecipeError("no", "try this"), 2),
        (errors.DataError("no", "try this"), 3),
        (errors.DivergedError("no", "try this"), 5),
        (errors.CheckpointError("no", "try this"), 6),
    ],
)
def test_an_error_ends_as_sentence_hint_and_exit_code(error: errors.GmmcError, code: int) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["gmmc: error: no", "gmmc: try this"]


def test_a_stop_is_no_error_but_has_its_code() -> None:
    result = CliRunner().invoke(failing(errors.StoppedError("SIGINT after step 3")), ["fail"])
    assert (result.exit_code, result.stderr) == (130, "gmmc: stopped: SIGINT after step 3\n")


def test_ctrl_c_anywhere_else() -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt()), ["fail"])
    assert (result.exit_code, result.stderr) == (130, "gmmc: stopped\n")


def test_a_bug_shows_itself() -> None:
    result = CliRunner().invoke(failing(ZeroDivisionError("a bug")), ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def failing(error: BaseException) -> typer.Typer:
    """An app under the same boundary, whose one command raises."""
    toy = typer.Typer(cls=Boundary)

    @toy.command("fail")
    def fail() -> None:
        raise error

    @toy.callback()
    def options() -> None:
        """Make it a group."""

    return toy


def test_version(gmmc: Gmmc) -> None:
    assert gmmc("--version").stdout == f"gmmc {__version__}\n"


@pytest.mark.parametrize("words", [[], ["recipes"], ["data"], ["runs"]])
def test_without_a_verb_there_is_help(words: list[str], gmmc: Gmmc) -> None:
    assert "Usage" in gmmc(*words).output


@pytest.mark.parametrize(
    "words", [["fly"], ["train", "--speed", "9"], ["sample", "--n", "0"], ["sample", "--format", "jpg"], ["recipes", "show"]]
)
def test_wrong_usage_exits_2(words: list[str], gmmc: Gmmc) -> None:
    result = gmmc(*words)
    assert (result.exit_code, result.stdout) == (2, "")
