"""Options that mean the same in every verb, and the two ways to answer."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gmmcli.errors import RecipeError

if TYPE_CHECKING:
    import torch

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; warnings and errors only.")]
RunsDir = Annotated[Path | None, typer.Option("--runs-dir", help="Where runs are. Default: $GMMC_RUNS_DIR or ./runs.", show_default=False)]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run", help="Run by path, id or unique prefix. Default: $GMMC_RUN, else the newest with a checkpoint.", show_default=False
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: cuda where there is one.")]


def answer(document: Any) -> None:
    """Print the one object of ``--json``."""
    print(json.dumps(document, indent=1))


def note(line: str, quiet: bool = False) -> None:
    """Say something beside the answer, on stderr."""
    if not quiet:
        print(f"gmmc: {line}", file=sys.stderr)


def select_device(name: Literal["auto", "cpu", "cuda"]) -> "torch.device":
    """The device that ``--device`` means; RecipeError where there is none such."""
    from gmmcli.core.compute import Compute

    try:
        return Compute(device=name).select()
    except ValueError as error:
        raise RecipeError(str(error), "use --device auto") from error
