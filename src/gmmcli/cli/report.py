"""``gmmc report``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli.cli.options import Json, Quiet, RunNames, RunsDir, answer, note
from gmmcli.errors import RecipeError, RunError

if TYPE_CHECKING:
    from gmmcli.run import Run

EPILOG = "Examples:\n\ngmmc report\n\ngmmc report --run digits_dis --run digits_gen\n\ngmmc report --study runs/study-digits"


def report_command(
    runs: RunNames = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", metavar="DIR", help="Report all runs in this directory, usually a study's.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Path of the HTML page; the Markdown is written next to it. Default: report.html in the run, study or runs directory.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs: every saved result, the paper's figures, which model is best by each metric, and which claims hold.

    Prints a table, and writes a self-contained page (report.html) and its Markdown (report.md).

    Runs that differ only in the seed are one model.

    Nothing is measured here: gmmc eval, attack and tsne measure and save.
    """
    if runs and study:
        raise RecipeError("--run and --study cannot be combined", "give one of them")
    present(runs, study, runs_dir, out, json, quiet)


def present(
    runs: Sequence[str] | None,
    study: Path | None,
    runs_dir: Path | None,
    out: Path | None,
    json: bool,
    quiet: bool,
    command: str = "report",
) -> None:
    """Collect runs, write their page and Markdown, and print the table or the JSON object."""
    from gmmcli import toml
    from gmmcli.report.collect import gather
    from gmmcli.report.compare import compare
    from gmmcli.report.page import page
    from gmmcli.report.text import document, markdown, terminal
    from gmmcli.run import default_runs_dir, list_runs, open_run
    from gmmcli.storage import check_writable, placed, write_text

    if study:
        found = list_runs(study)
        if not found:
            raise RunError(f"no runs in {study}", "train some: gmmc study studies/digits.toml")
    else:
        names: list[str | None] = [*runs] if runs else [None]
        found = [open_run(name, runs_dir) for name in names]
    home = study or (found[0].path if len(found) == 1 else runs_dir or default_runs_dir())
    path = placed(out, home / "report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f"--out {path}: the page is HTML", "give a name that ends in .html, or a folder")
    check_writable(path)
    comparison = compare(gather([run for run in found if _readable(run, alone=len(found) == 1)]))
    plan = study / "study.toml" if study else None
    described = toml.parse(toml.read(plan), str(plan)) if plan and plan.exists() else {}
    title = f"Study {described['name']}" if "name" in described else ", ".join(model.name for model in comparison.models)
    about = str(described.get("about", ""))
    write_text(path, page(comparison, title, about))
    write_text(path.with_suffix(".md"), markdown(comparison, title, about))
    if json:
        answer(document(comparison) | {"command": command, "page": str(path)})
        return
    if not quiet:
        from rich.console import Console

        Console(highlight=False).print(terminal(comparison))
    note(f"Markdown: {path.with_suffix('.md')}", quiet)
    print(path)


def _readable(run: "Run", alone: bool) -> bool:
    """Whether a run can be reported; what is damaged is said on stderr, and raised of a run that is alone."""
    for damage in run.damaged_results():
        note(f"warning: {damage}; it is left out")
    try:
        _ = run.recipe, run.provenance
    except RunError as error:
        if alone:
            raise
        note(f"warning: {error.message}; the run is left out")
        return False
    return True
