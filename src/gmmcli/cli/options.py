"""Options that mean the same in every verb, and the ways to answer."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from gmmcli import layout
from gmmcli.cli import completion
from gmmcli.errors import RecipeError, StorageError
from gmmcli.named import select_device
from gmmcli.storage import finite

if TYPE_CHECKING:
    from gmmcli.evaluate.measured import Measured
    from gmmcli.evaluate.subject import Subject

MOST = 10**8
"""Images, or updates of a chain, that an option may ask for."""
GRIDS = (".png", ".jpg", ".webp")
FIGURES = (".png", ".svg")  # both are written


def check_out(out: Path | None, what: str, endings: Sequence[str], option: str = "--out") -> Path | None:
    """Return ``--out``, or another option; RecipeError where it ends otherwise, StorageError where it cannot be written.

    A folder takes any file.
    """
    if out is not None:
        if not out.is_dir() and out.suffix.lower() not in endings:
            raise RecipeError(
                f"{option} {out}: {what} cannot be a {out.suffix or 'file without a suffix'}", f"give {', '.join(endings)}, or a folder"
            )
        from gmmcli.storage import check_writable

        check_writable(out)
    return out


def check_runs_dir(path: Path | None) -> Path | None:
    """Return ``--runs-dir``; StorageError where it is a file."""
    if path is not None and path.exists() and not path.is_dir():
        raise StorageError(f"--runs-dir {path} is a file, not a folder", "give a folder")
    return path


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; warnings and errors only.")]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", help="Where runs are. Default: $GMMC_RUNS_DIR or ./runs.", show_default=False, callback=check_runs_dir),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Run by path, id, unique prefix or recipe. Default: $GMMC_RUN, else the newest with a checkpoint.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
RunNames = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        help="Run by path, id, unique prefix or recipe; several stand side by side. Default: $GMMC_RUN, else the newest with a checkpoint.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
Origin = Annotated[
    Literal["noise", "buffer"],
    typer.Option(
        "--from", help="noise: fresh chains, from the start that the recipe gives them. buffer: the replay buffer as training left it."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Other data: NAME, folder:PATH or npz:PATH. Default: the run's own.",
        show_default=False,
        autocompletion=completion.among("sources", *completion.SOURCES),
    ),
]
SplitOption = Annotated[Literal["train", "validation", "test"], typer.Option("--split", help="Which images of the data.")]
N = Annotated[
    int | None, typer.Option("--n", min=2, max=MOST, help="Maximum number of images, drawn at random. Default: all.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed: the same seed gives the same figures.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Where to write the figure: .png or .svg (both are written), or a folder. Default: figures/ in the run.",
        show_default=False,
        callback=lambda out: check_out(out, "a figure", FIGURES),
    ),
]
GridOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Where to write the picture: .png, .jpg or .webp, or a folder. Default: in the run.",
        show_default=False,
        callback=lambda out: check_out(out, "a grid of images", GRIDS),
    ),
]
Best = Annotated[bool, typer.Option("--best", help="The weights of the best validation instead of the last.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: cuda where there is one.")]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give typer the fields of a command's option groups as options of the command, which is called with the groups.

    A group is a dataclass whose fields are annotated with ``typer.Option``; a parameter of the command is a group by its type.
    """
    parameters, groups = [], dict[str, Any]()
    for name, parameter in signature(command).parameters.items():
        group = parameter.annotation
        if is_dataclass(group):
            groups[name], hints = group, get_type_hints(group, include_extras=True)
            options = [Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]) for f in fields(group)]
        else:
            options = [parameter.replace(kind=Parameter.KEYWORD_ONLY)]
        parameters += options

    @wraps(command)
    def with_groups(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        command(**given)

    with_groups.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]  # what typer reads
    with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_groups


@dataclass(frozen=True)
class SomeImages:
    """How many of the run's own test images, and which."""

    n: N = None
    seed: Seed = 1


@dataclass(frozen=True)
class Images(SomeImages):
    """Which images to evaluate on."""

    data: Data = None
    split: SplitOption = "test"


@dataclass(frozen=True)
class OfRun:
    """Which checkpoint of which run, and how to answer."""

    best: Best = False
    run: RunName = None
    runs_dir: RunsDir = None
    device: Device = "auto"
    json: Json = False
    quiet: Quiet = False

    def open(self, images: SomeImages, run: str | None = None, *, saves: bool = True) -> "Subject":
        """The subject of an evaluation (``Subject.open``), of another run where one is named, after saying which run it is on stderr.

        StorageError where something is to be saved in the run, and neither it nor the user's cache takes files.
        """
        subject = opened(self.run if run is None else run, self.runs_dir, self.device, self.quiet, best=self.best, **asdict(images))
        return found_place(subject) if saves else subject

    def show(self, measured: "Measured") -> None:
        """Answer with a result, see ``show``."""
        show(measured, self.json)


@dataclass(frozen=True)
class OfRuns(OfRun):
    """As ``OfRun``, of several runs side by side."""

    run: RunNames = None  # type: ignore[assignment]  # several, at the same place among the options

    def open_each(self, images: SomeImages) -> "list[Subject]":
        """The subject of each run, as ``open``."""
        names: list[str | None] = [*self.run] if self.run else [None]
        subjects = [opened(name, self.runs_dir, self.device, self.quiet, best=self.best, **asdict(images)) for name in names]
        return list(map(found_place, subjects))


@dataclass(frozen=True)
class Refining:
    """Whether chains come before the class (``Subject.refined``)."""

    refine: Annotated[
        int,
        typer.Option("--refine", metavar="STEPS", min=0, max=1000, help="Steps down the energy from each image before its class."),
    ] = 0
    chains: Annotated[
        int, typer.Option("--refine-chains", min=1, max=1000, help="With --refine: chains of each image, whose features are averaged.")
    ] = 1
    noise: Annotated[
        float | None,
        typer.Option(
            "--refine-noise",
            min=0,
            max=2,
            help="With --refine: standard deviation of the noise of a step, in [-1, 1]. Default: that of the run's chains.",
            show_default=False,
        ),
    ] = None

    def of(self, subject: "Subject") -> "Subject":
        """The subject, refined where that is asked for."""
        if not self.refine and (self.chains > 1 or self.noise is not None):
            raise RecipeError("--refine-chains and --refine-noise are options of --refine", "add --refine 10, or leave them out")
        return subject.refined(self.refine, self.chains, self.noise)


def answer(document: Any) -> None:
    """Print the one object of ``--json`` (docs/schema); a number that is not finite is null."""
    print(json.dumps(finite(document), indent=1))


def note(line: str, quiet: bool = False) -> None:
    """Say something beside the answer, on stderr."""
    if not quiet:
        with suppress(OSError):  # of a stderr that nobody reads
            print(layout.fitted(f"gmmc: {line}", sys.stderr), file=sys.stderr)


def show(measured: "Measured", json: bool) -> None:
    """Answer with a result: its object, or its table and the paths of its pictures; warnings go to stderr."""
    if json:
        _warn(measured)
        answer(measured.result)
    else:
        show_each([measured])


def show_each(measured: "Iterable[Measured]") -> None:
    """Answer with several results in words, an empty line between."""
    from gmmcli.evaluate.tables import result_table

    parts: list[layout.Part] = []
    for one in measured:
        _warn(one)
        parts += ["", *result_table(one.result), *one.pictures]
    layout.show(*parts)


def _warn(measured: "Measured") -> None:
    """Say on stderr what is to be known of a result."""
    for warning in measured.warnings:
        note(f"warning: {warning}")


def opened(run: str | Path | None, runs_dir: Path | None, device: Literal["auto", "cpu", "cuda"], quiet: bool, **asked: Any) -> "Subject":
    """The subject of an evaluation (``Subject.open``), after saying on stderr which run it is."""
    from gmmcli.evaluate.subject import Subject

    subject = Subject.open(run, runs_dir, device=select_device(device), **asked)
    note(f"run {subject.run.path}, step {subject.step}", quiet)
    return subject


def found_place(subject: "Subject") -> "Subject":
    """The same, once it is known where its results go: not after they have been computed."""
    _ = subject.run.output
    return subject
