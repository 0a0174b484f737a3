"""``gmmc recipes new``."""

import re
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Json, Quiet, answer, note
from gmmcli.errors import GmmcError, RecipeError, StorageError, quoted
from gmmcli.layout import Table, show

if TYPE_CHECKING:
    from gmmcli.data.survey import Survey
    from gmmcli.draft.fit import Draft

EPILOG = (
    "Examples:\n\ngmmc recipes new\n\ngmmc recipes new photos.toml --data folder:my/photos --for classify --time 20m\n\n"
    "gmmc recipes new more.toml --data folder:my/photos --init-from photos"
)
Goal = Literal["classify", "generate", "both"]
FILE, GOAL, TIME = "mine.toml", "both", "1h"
WHERE = "Where are your images? A folder with a folder for each class, its .zip, an .npz, or digits"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LARGEST = 1024
"""Pixels: of the side of an image that is asked for."""
T = TypeVar("T")


def new_command(
    file: Annotated[
        Path | None, typer.Argument(metavar="NAME.toml", help=f"The file to write. Default: {FILE}.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="The images: folder:PATH, npz:PATH or NAME. Without it you are asked.",
            show_default=False,
            autocompletion=completion.sources,
        ),
    ] = None,
    goal: Annotated[Goal | None, typer.Option("--for", help=f"What the model is for. Default: {GOAL}.", show_default=False)] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help=f"How long training may take: 10m, 8h, 2d. Default: {TIME}.",
            show_default=False,
            autocompletion=completion.among("", "10m", "1h", "8h", "2d"),
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", min=8, max=LARGEST, help="Side of the images in pixels. Default: as they are, 32 at most.", show_default=False
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="RUN",
            help="Start from this run's model, if it fits.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented recipe for your images, with sizes that fit them, this machine and the time there is.

    Without --data, on a terminal, it asks where the images are, what the model is for, how long training may take, and for a name.

    It looks at the images and times a few training steps. Settings are those of the shipped recipe whose images are most like yours.
    """
    from gmmcli.draft.fit import fitted
    from gmmcli.storage import file_stem, write_text

    if data is None and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RecipeError("gmmc recipes new needs --data", "say --data folder:my/images; without it, it asks on a terminal")
    to_write, ask = partial(_file, force=force), _asked if data is None else _usual
    path = to_write(str(file)) if file else None  # errors first, then what takes time
    seconds = _seconds(time) if time else None
    found = _survey(data) if data else ask(WHERE, "", _survey)
    purpose = _goal(goal) if goal else ask("What is the model for: classify, generate or both?", GOAL, _goal)
    seconds = seconds or ask("How long may training take? 10m, 8h or 2d, say", TIME, _seconds)
    path = path or ask("What shall the recipe's file be called?", FILE, to_write)
    note("timing a few training steps", quiet)
    draft = fitted(file_stem(path.stem), found, purpose, seconds, size, init_from)
    write_text(path, draft.text)
    _show(path, draft, purpose, json)


def _show(path: Path, draft: "Draft", goal: Goal, json: bool) -> None:
    named = shlex.quote(str(path))
    sample = f"gmmc sample --class all --per-class 8{' --best' if goal == 'generate' else ''}"
    after = {"classify": ["gmmc classify PICTURE"], "generate": [sample], "both": ["gmmc classify PICTURE", sample]}[goal]
    source: Any = draft.survey.source
    fix = " --fix" if draft.survey.n_unreadable and Path(source.path).is_dir() else ""
    commands = [f"gmmc data check {named}{fix}", f"gmmc train {named}", *after]
    if json:
        found = draft.survey
        values = {
            "n_train": found.n_train,
            "n_unreadable": found.n_unreadable,
            "classes": found.class_names,
            "side": found.side,
            "channels": found.channels,
            "settings_of": draft.pattern.name,
            "n_steps": draft.n_steps,
            "step_seconds": draft.step_seconds,
            "total_seconds": draft.seconds,
            "n_steps_that_suit": draft.whole or sum(draft.n_steps),
            "next": commands,
        }
        answer({"schema": 1, "command": "recipes new", "path": str(path), "recipe": draft.recipe.document(), "values": values})
        return
    print(f"wrote {path}")
    show(Table(rows=[("", line) for line in draft.about], sentences=True))
    print("\n".join(["next:", *(f"  {command}" for command in commands)]))


def _usual(question: str, usual: str, read: Callable[[str], T]) -> T:
    """Ask nothing."""
    return read(usual)


def _asked(question: str, usual: str, read: Callable[[str], T]) -> T:
    """Ask on the terminal until the answer will do; an empty one is the usual."""
    while True:
        print(f"{question}{f' [{usual}]' if usual else ''} ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            raise RecipeError("gmmc recipes new was given no answer", "say --data folder:my/images")
        try:
            return read(line.strip() or usual)
        except GmmcError as error:
            note(f"{error.message}; {error.hint}" if error.hint else error.message)


def _survey(text: str) -> "Survey":
    """Look at the images that a user names, as SOURCE or by the path alone."""
    from gmmcli.data.sources import SOURCES, parse_source
    from gmmcli.data.survey import survey

    if text.partition(":")[0] not in SOURCES and text and Path(text).exists():
        text = f"{'npz' if text.lower().endswith('.npz') else 'folder'}:{text}"
    source: Any = parse_source(text)
    found = survey(source)
    if n := found.n_unreadable:
        many = f"{n:,} files" if n > 1 else "1 file"
        note(f"warning: {many} cannot be read; see `gmmc data check {shlex.quote(source.path)}`. Training needs them out of the way")
    return found


def _goal(text: str) -> Goal:
    for goal in get_args(Goal):
        if goal.startswith(text.lower()) and text:
            return goal  # type: ignore[no-any-return]  # one of the literals
    raise RecipeError(f"{quoted(text)} is none of classify, generate and both")


def _seconds(text: str) -> float:
    """Read ``90s``, ``10m``, ``1.5h`` or ``2d``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([smhd])[a-z]*", text.strip().lower())
    if not found or not float(found[1]):
        raise RecipeError(f"--time {quoted(text)} is no length of time", "say 10m, 8h or 2d")
    return float(found[1]) * UNITS[found[2]]


def _file(text: str, force: bool) -> Path:
    """The file to write; RecipeError where it is no .toml, StorageError where it is there already or cannot be written."""
    from gmmcli.storage import check_writable

    path = Path(text)
    if path.suffix != ".toml":
        raise RecipeError(f"{path} does not end in .toml", f"call it {path.name or 'mine'}.toml")
    if path.is_dir() or (path.exists() and not force):
        raise StorageError(f"{path} is there already", "give another name, or overwrite it with --force")
    check_writable(path)
    return path
