"""The fenced blocks of README and docs, and the gmmc and make commands that the pages name."""

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from gmmcli.cli.app import app
from gmmcli.recipe import Recipe, shipped

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted((ROOT / "docs").rglob("*.md")))
    if page.is_file()
]
FENCE = re.compile(
    r"^(?P<indent> *)(?:<!-- not run[^:>]*: (?P<why>[^>]+) -->\n\n?(?P=indent))?"
    r"```(?P<language>\w*).*\n(?P<text>(?:.*\n)*?)(?P=indent)```$",
    re.MULTILINE,
)
INLINE = re.compile(r"`((?:gmmc|make|torchrun)\s[^`]*)`")
EXAMPLE = re.compile(r"^  (gmmc .*)$", re.MULTILINE)
"""A command in a help text."""
BETWEEN = {"&&", "||", ";", "|", ">", ">>", "<"}
"""What ends a command, of which pages make use."""

GMMC = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    where: str
    """Page and line."""
    language: str
    text: str
    why: str
    """The reason not to run it, from the comment above, ``<!-- not run: ... -->``; else empty."""


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            f"{page.name}:{text.count(chr(10), 0, found.start('text'))}",
            found["language"],
            textwrap.dedent(found["text"]),
            found["why"] or "",
        )
        for found in FENCE.finditer(text)
    ]


def lines(script: str) -> list[str]:
    """The lines of a shell script, continued ones in one, without comments."""
    return [line for line in script.replace("\\\n", " ").splitlines() if line.strip() and not line.lstrip().startswith("#")]


def words(line: str) -> list[str]:
    """A line's words, and what stands between commands."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    return list(lexer)


def commands(line: str) -> Iterator[list[str]]:
    """Every ``gmmc ...`` and ``make ...`` of a line, as words: of torchrun's and of a quoted script too."""
    found: list[str] | None = None
    for before, word in pairwise(["", *words(line), ";"]):
        if word in BETWEEN:
            if found:
                yield found
            found = None
        elif found is not None:
            found.append(word)
        elif word in ("gmmc", "gmmcli", "make") and not before.startswith("--r"):  # the value of torchrun's --rdzv-id
            found = ["gmmc" if word == "gmmcli" else word]
        elif " " in word:
            yield from commands(word)


def named(page: Path) -> Iterator[str]:
    """Every command line of a page: in its blocks of shell, run or not, in examples of a help text, and between backticks."""
    for block in blocks(page):
        if block.language == "sh":
            yield from lines(block.text)
        elif block.language == "text":
            yield from EXAMPLE.findall(block.text)
    yield from (" ".join(one.split()) for one in INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8"))))


def check(command: Sequence[str]) -> None:
    """Raise where there is no such command, option, target of make, or key of a shipped recipe; values may be placeholders."""
    program, *rest = command[: command.index("...")] if "..." in command else command
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert rest[0] in targets, f"no target {rest[0]!r} of make"
        return
    verb, values = _parsed(GMMC, rest)
    if verb == "train" and values.get("recipe") in shipped():
        Recipe.load(values["recipe"], values.get("overrides", ()))


def _parsed(command: Any, rest: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse words as gmmc does, without converting their values; an option at the end may lack its own."""
    context = command.context_class(command, info_name=command.name)
    options = [name for one in command.get_params(context) if not getattr(one, "is_flag", True) for name in one.opts]
    values, left, _ = command.make_parser(context).parse_args([*rest, *(["VALUE"] if rest and rest[-1] in options else [])])
    if left and hasattr(command, "commands") and not left[0].isupper():  # gmmc COMMAND --help
        below = command.get_command(context, left[0])
        assert below, f"no command {left[0]!r}"
        return _parsed(below, left[1:])
    assert not left or hasattr(command, "commands"), f"too many words: {left}"
    return command.name, values
