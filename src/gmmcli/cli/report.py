"""``gmmc report``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gmmcli.cli.options import Json, Quiet, RunNames, RunsDir, answer, note
from gmmcli.errors import RecipeError, RunError

EPILOG = "Examples:\n\ngmmc report\n\ngmmc report --run digits_dis --run digits_gen\n\ngmmc report --study runs/study-digits"


def report_command(
    runs: RunNames = None,
    study: Annotated[
        Path | None, typer.Option("--study", metavar="DIR", help="All runs of a study's directory, or of any other.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The page; the Markdown goes beside it. Default: report.html with the runs.", show_default=False),
    ] = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put runs side by side: every saved result, the paper's figures beside it, who is best at what, and which claims hold.

    Prints a table, and writes a page (report.html, self-contained) and its Markdown (report.md). Runs that differ in their seed
    alone are one model. It measures nothing itself: gmmc eval, attack and tsne do.
    """
    if runs and study:
        raise RecipeError("--run and --study each say which runs", "give one of them")
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
    """Gather runs, write their page and Markdown, and answer with the table or the object."""
    import tomli

    from gmmcli.report.collect import gather
    from gmmcli.report.compare import compare
    from gmmcli.report.page import page
    from gmmcli.report.text import document, markdown, terminal
    from gmmcli.run import default_runs_dir, list_runs, open_run
    from gmmcli.storage import write_text

    if study:
        found = list_runs(study)
        if not found:
            raise RunError(f"no runs in {study}", "make some: gmmc study studies/digits.toml")
    else:
        names: list[str | None] = [*runs] if runs else [None]
        found = [open_run(name, runs_dir) for name in names]
    comparison = compare(gather(found))
    plan = study / "study.toml" if study else None
    described = tomli.loads(plan.read_text(encoding="utf-8")) if plan and plan.exists() else {}
    title = f"Study {described['name']}" if described else ", ".join(model.name for model in comparison.models)
    about = described.get("about", "")
    home = study or (found[0].path if len(found) == 1 else runs_dir or default_runs_dir())
    path = out or home / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f"--out {path}: the page is HTML", "give a name that ends in .html; the Markdown goes beside it")
    write_text(path, page(comparison, title, about))
    write_text(path.with_suffix(".md"), markdown(comparison, title, about))
    if json:
        answer(document(comparison) | {"command": command, "page": str(path)})
        return
    if not quiet:
        from rich.console import Console

        Console(highlight=False).print(terminal(comparison))
    note(f"the same in Markdown: {path.with_suffix('.md')}", quiet)
    print(path)
