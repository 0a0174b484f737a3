"""``gmmc runs``."""

import csv
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli import layout
from gmmcli.cli import completion
from gmmcli.cli.listing import COLUMNS, rows, shown
from gmmcli.cli.options import Json, RunName, RunsDir, answer, note
from gmmcli.cli.verbs import Verbs
from gmmcli.errors import CheckpointError, RecipeError, visible
from gmmcli.layout import Table, width_of
from gmmcli.run_folder import default_runs_dir, every_run_path

if TYPE_CHECKING:
    from gmmcli.run import Run

Name = Annotated[
    str | None, typer.Argument(metavar="RUN", help="The run, as by --run.", show_default=False, autocompletion=completion.runs)
]
Named = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Run by path, id, unique prefix or recipe. Default: all, those of studies included.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

app = Verbs(help="List, show, check, repair and thin out runs.")


@app.command("ls", epilog="Examples:\n\ngmmc runs ls\n\ngmmc runs ls --csv > runs.csv")
def ls(
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values: every column, a line for each run.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Every column, whatever the width of the terminal.")] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """List the runs, those of studies included, oldest first: status, last saved step, seed, test accuracy, and what differs.

    What differs are the keys of the recipe, apart from the seed, in which runs of the same name differ.
    """
    if as_csv + wide + json > 1:
        raise RecipeError("--csv, --wide and --json exclude each other", "give one of them")
    from gmmcli.results import Results

    folder = runs_dir or default_runs_dir()
    paths = every_run_path(folder)
    for damage in (damage for path in paths for damage in Results(path).damaged_results()):
        note(f"warning: {damage}")
    listed = rows(paths, folder)
    if json:
        answer({"schema": 1, "command": "runs ls", "values": [asdict(row) for row in listed]})
        return
    if not listed:
        note(f"no runs in {folder}; train one: gmmc train digits_gen")
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([COLUMNS, *(map(visible, row.wide()) for row in listed)])
    elif listed:
        table = Table(COLUMNS, [row.wide() for row in listed]) if wide else Table(rows=[row.cells() for row in listed])
        print("\n".join(table.lines(None if wide else width_of(sys.stdout))))


@app.command("show", epilog="Examples:\n\ngmmc runs show\n\ngmmc runs show digits_gen")
def show(name: Name = None, run: RunName = None, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Show a run's provenance, checkpoints and last metrics."""
    from gmmcli.run import open_run

    found = open_run(_one(name, run), runs_dir)
    logged = [line for line in found.metrics() if "loss" in line]
    values = {
        "path": str(found.path),
        "provenance": found.provenance,
        "checkpoints": [checkpoint.step for checkpoint in found.checkpoints],
        "best": found.read(lambda checkpoint: checkpoint.progress, best=True),
        "last_metrics": logged[-1] if logged else None,
    }
    if json:
        answer({"schema": 1, "command": "runs show", "run": found.id, "values": values})
        return
    for key, value in values.items():
        if isinstance(value, dict):
            items = Table(rows=[("", f"{name}: {item}") for name, item in value.items()], sentences=True)
            print("\n".join([f"{key}:", *items.lines(width_of(sys.stdout))]))
        else:
            layout.show(f"{key}: {value}")


def _one(name: str | None, run: str | None) -> str | None:
    """The one run that is named, as an argument or by ``--run``; None for neither."""
    if name is not None and run is not None:
        raise RecipeError("one run at a time", f"leave out {name}, or --run {run}")
    return run if name is None else name


def _meant(run: str | None, runs_dir: Path | None) -> "dict[str, Run]":
    """The run that is named; without a name all runs, those of studies included. Each by what it is called."""
    from gmmcli.run import Run, open_run

    if run is not None:
        found = open_run(run, runs_dir)
        return {found.id: found}
    folder = runs_dir or default_runs_dir()
    return {shown(path, folder): Run(path) for path in every_run_path(folder)}


def _tell(command: str, found: dict[str, list[str]], nothing: str, json: bool, dry_run: bool = False) -> None:
    """Answer with a line for each thing found of each run."""
    if json:
        values = [{"run": run, "found": told} for run, told in found.items()]
        answer({"schema": 1, "command": command, "dry_run": dry_run, "values": values})
        return
    for run, told in found.items():
        for line in told:
            layout.show(f"{run}: {'would have ' * dry_run}{line}")
    if not any(found.values()):
        print(nothing)


@app.command("check", epilog="Examples:\n\ngmmc runs check\n\ngmmc runs check digits_gen")
def check(name: Name = None, run: Named = None, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Read every file of runs and say what is damaged (exit 6) or left over from a crash."""
    from gmmcli.upkeep import faults, litter

    runs = _meant(_one(name, run), runs_dir)
    damaged = {called: faults(one) for called, one in runs.items()}
    left_over = {called: [f"left over: {path}" for path in litter(one)] for called, one in runs.items()}
    _tell("runs check", {called: damaged[called] + left_over[called] for called in runs}, "all intact", json)
    if n := sum(map(bool, damaged.values())):
        raise CheckpointError(f"{n} of {len(runs)} runs are damaged", "gmmc runs repair sets damaged checkpoints aside")


@app.command("repair", epilog="Example:\n\ngmmc runs repair --dry-run")
def repair(name: Name = None, run: Named = None, dry_run: DryRun = False, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Set damaged checkpoints aside, remove what crashes have left, and record which trainings were killed.

    Nothing is deleted that was ever complete. Runs that are being trained are passed over.
    """
    from gmmcli import upkeep

    named = _one(name, run)
    runs = {called: one for called, one in _meant(named, runs_dir).items() if named is not None or not one.is_locked}
    _tell("runs repair", {called: upkeep.repair(one, dry_run) for called, one in runs.items()}, "nothing to repair", json, dry_run)


@app.command("gc", epilog="Example:\n\ngmmc runs gc --keep 1 --dry-run")
def gc(
    name: Name = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Newest checkpoints to keep of each run; the best stays as well.")] = 1,
    run: Named = None,
    dry_run: DryRun = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Remove old checkpoints, never the newest intact one nor the best, nor any of a run that is being trained."""
    from gmmcli.upkeep import thin

    named = _one(name, run)
    runs = {called: one for called, one in _meant(named, runs_dir).items() if named is not None or (one.checkpoints and not one.is_locked)}
    _tell("runs gc", {called: thin(one, keep, dry_run) for called, one in runs.items()}, "nothing to remove", json, dry_run)
