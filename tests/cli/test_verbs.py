import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from textwrap import wrap

import pytest
import typer
from animals import Gmmc, leaves
from typer.main import get_command
from typer.testing import CliRunner

from gmmcli.cli.app import app
from gmmcli.cli.verbs import Verb, Verbs

ROOT = get_command(app)
COMMANDS = [name for name, _ in leaves(ROOT)]
EVERY = sorted({"", *(name.rpartition(" ")[0] for name in COMMANDS), *COMMANDS})
AS_IS = re.compile(r"  gmmc |Usage: ")
"""Lines that are not broken: examples, to be pasted."""


@cache
def helped(words: str, width: int) -> list[str]:
    """The lines of a command's help on a terminal of this width."""
    with pytest.MonkeyPatch.context() as terminal, redirect_stdout(StringIO()) as shown:
        terminal.setenv("COLUMNS", str(width))
        ROOT.main([*words.split(), "--help"], prog_name="gmmc", standalone_mode=False)
    return shown.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 100, 300])
def test_help_keeps_to_the_width_of_the_terminal(width: int) -> None:
    for words in EVERY:
        for line in helped(words, width):
            assert len(line) <= min(width, 100) or AS_IS.match(line), f"gmmc {words}: {line}"


@pytest.mark.parametrize("width", [40, 100])
def test_paragraphs_of_help_flow_without_hard_breaks(width: int) -> None:
    for words in EVERY:
        about = "\n".join(helped(words, width)).partition("\n\n")[2]
        paragraphs = re.split("\n\n", re.split(r"\n\n(?=\w+:\n)", about)[0])
        assert paragraphs[0]
        for paragraph in paragraphs:
            flowing = wrap(" ".join(paragraph.split()), width - 2)
            assert [line.removeprefix("  ") for line in paragraph.splitlines()] == flowing, f"gmmc {words}"


def test_help_has_no_type_for_a_flag_no_markup_and_no_escapes() -> None:
    for words in EVERY:
        text = "\n".join(helped(words, 100))
        assert not re.search(r"<bool>|``|\x1b|[╭│╰…]|\w\.\.\.$", text, re.MULTILINE), f"gmmc {words}"


def test_examples_stand_a_line_each_as_they_are_typed() -> None:
    assert helped("eval ood", 40)[-3:] == [
        "Examples:",
        "  gmmc eval ood",
        "  gmmc eval ood --against interp --against npz:svhn.npz --against folder:faces --score log_px",
    ]


def test_the_list_of_commands_tells_all_of_their_first_paragraph() -> None:
    said = " ".join(" ".join(helped("eval", 100)).split())
    assert "ood Measure how well scores tell the run's test images from others: AUROC, AUPR, FPR at 95% TPR" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sample --n x", "Invalid value for '--n': must be an integer"),
        ("sample --n 0", "Invalid value for '--n': must be greater than or equal to 1"),
        ("sample --step-size x", "Invalid value for '--step-size': must be a number"),
        ("sample --format jpg", "Invalid value for '--format': 'jpg' is not one of 'grid', 'png', 'npz'."),
        ("eval accuracy --split x", "Invalid value for '--split': 'x' is not one of 'train', 'validation', 'test'."),
        ("runs gc --keep 1.5", "Invalid value for '--keep': must be an integer"),
        ("attack pgd --n 1", "Invalid value for '--n': must be greater than or equal to 2"),
        ("runz", "No such command 'runz'. Did you mean 'runs'?"),
        ("train --sett a=1", "No such option: --sett (Possible options: --quiet, --set)"),
    ],
)
def test_wrong_usage_is_told_in_our_words(words: str, said: str, gmmc: Gmmc) -> None:
    result = gmmc(*words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: {said}"
    assert " -h' for help." in result.stderr


def test_every_command_is_of_this_kind_also_those_in_groups() -> None:
    for name, command in leaves(ROOT):
        assert isinstance(command, Verb), name


def test_a_command_of_ones_own_has_the_same_help() -> None:
    toy = Verbs(help="A toy.")

    @toy.command("one", epilog="Example:\n\ntoy one --long-option-of-the-example")
    def one(flag: bool = typer.Option(False, "--flag", help="A flag.")) -> None:
        """First line
        goes on.
        """

    shown = CliRunner().invoke(toy, ["--help"], prog_name="toy").stdout
    assert shown.startswith("Usage: toy [OPTIONS]\n\n  First line goes on.\n\nOptions:\n")
    assert shown.endswith("\nExample:\n  toy one --long-option-of-the-example\n")


@pytest.mark.parametrize("words", ["--help", "runs ls --help", "recipes ls", "--version"])
def test_who_closes_the_pipe_gets_no_traceback(words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run([sys.executable, "-m", "gmmcli", *words.split()], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")
