"""``gmmc report``."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli.cli.options import Json, Quiet, RunNames, RunsDir, answer, note
from gmmcli.errors import RecipeError, RunError
from gmmcli.layout import show

if TYPE_CHECKING:
    from gmmcli.report.compare import Comparison
    from gmmcli.run import Run

INTERVAL, PATIENCE = 5, 60
"""Seconds from one look at watched runs to the next, and to wait for a study's next training."""
EPILOG = (
    "Examples:\n\ngmmc report\n\ngmmc report --watch\n\ngmmc report --run digits_dis --run digits_gen\n\n"
    "gmmc report --study runs/study-digits"
)


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
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Write the page again every few seconds where something has changed, until the runs have ended or Ctrl-C."
        ),
    ] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs: every saved result, the paper's figures, which model is best by each metric, and which claims hold.

    Prints a table, and writes a self-contained page (report.html) and its Markdown (report.md).

    Runs that differ only in the seed are one model.

    Of a training that has not ended it shows the curves and the newest preview.

    Nothing is measured here: gmmc eval, attack and tsne measure and save.
    """
    if runs and study:
        raise RecipeError("--run and --study cannot be combined", "give one of them")
    if watch:
        runs = None if study else [str(run.path) for run in _chosen(runs, None, runs_dir, watch=True)]
        _follow(runs, study, runs_dir, out, quiet)
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
    from gmmcli.report.text import document, terminal

    path, comparison = _write(_chosen(runs, study, runs_dir), study, runs_dir, out)
    if json:
        answer(document(comparison) | {"command": command, "page": str(path)})
        return
    if not quiet:
        show(*terminal(comparison))
    note(f"Markdown: {path.with_suffix('.md')}", quiet)
    show(path)


def _chosen(runs: Sequence[str] | None, study: Path | None, runs_dir: Path | None, watch: bool = False) -> "list[Run]":
    """All runs of a study, or each that is named."""
    from gmmcli.run import list_runs

    if not study:
        return [_meant(name, runs_dir, watch) for name in runs or (None,)]
    found = list_runs(study)
    if not found:
        raise RunError(f"no runs in {study}", "train some: gmmc study studies/digits.toml")
    return found


def _meant(name: str | None, runs_dir: Path | None, watch: bool) -> "Run":
    """A run as ``open_run`` finds it, or else the newest that is being trained; to watch, that one comes first."""
    from gmmcli.run import Run, open_run
    from gmmcli.run_folder import RunFolder, find_run

    trained = None
    with suppress(RunError):
        trained = Run(find_run(name, runs_dir, lambda path: RunFolder(path).is_locked))
    if trained and watch:
        return trained
    try:
        return open_run(name, runs_dir)
    except RunError:
        if trained:
            return trained
        raise


def _write(found: "list[Run]", study: Path | None, runs_dir: Path | None, out: Path | None, reload: int = 0) -> "tuple[Path, Comparison]":
    """Write the page and the Markdown of runs; return the page's path, and what it compares."""
    from gmmcli import toml
    from gmmcli.report.collect import gather
    from gmmcli.report.compare import compare
    from gmmcli.report.page import page
    from gmmcli.report.text import markdown
    from gmmcli.run import default_runs_dir
    from gmmcli.storage import check_writable, placed, write_text

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
    write_text(path, page(comparison, title, about, reload))
    write_text(path.with_suffix(".md"), markdown(comparison, title, about))
    return path, comparison


def _follow(runs: Sequence[str] | None, study: Path | None, runs_dir: Path | None, out: Path | None, quiet: bool) -> None:
    """Write the page whenever something has changed, until no run is being trained; of a study a while longer, since more may begin."""
    before, since = None, time.monotonic()
    with suppress(KeyboardInterrupt):  # it is how one quits
        while True:
            found = _chosen(runs, study, runs_dir)
            trained = any(run.is_locked for run in found)
            now = [_state(run) for run in found]
            if now != before:
                try:
                    note(f"wrote {_write(found, study, runs_dir, out, INTERVAL if trained else 0)[0]}", quiet)
                except RunError:
                    if not trained:  # else it has logged nothing yet
                        raise
            if now != before or trained:
                before, since = now, time.monotonic()
            if not trained and time.monotonic() - since >= PATIENCE * bool(study):
                return
            time.sleep(INTERVAL)


def _state(run: "Run") -> list[int]:
    """Numbers that differ where a report of a run would."""
    from gmmcli.run_folder import newest_preview

    files = [*(run.path / name for name in ("metrics.jsonl", "provenance.json", "results")), newest_preview(run.path)]
    return [run.is_locked, *(path.stat().st_mtime_ns if path and path.exists() else 0 for path in files)]


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
