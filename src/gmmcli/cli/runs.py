"""``gmmc runs``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmmcli.cli.options import Json, RunName, RunsDir, answer, note
from gmmcli.cli.verbs import Verbs
from gmmcli.errors import CheckpointError, RecipeError, RunError, visible

if TYPE_CHECKING:
    from gmmcli.run import Run

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

app = Verbs(help="List, show, check, repair and thin out runs.")


@app.command("ls", epilog="Example:\n\ngmmc runs ls")
def ls(runs_dir: RunsDir = None, json: Json = False) -> None:
    """List the runs, oldest first: status, last saved step, test accuracy."""
    from gmmcli.run import default_runs_dir, list_runs
    from gmmcli.storage import file_stem

    rows, folder = [], runs_dir or default_runs_dir()
    for run in list_runs(folder):
        checkpoints, measured = run.checkpoints, run.results().get(file_stem("eval accuracy"))
        for damage in run.damaged_results():
            note(f"warning: {damage}")
        try:
            status = run.status
        except RunError as error:
            note(f"warning: {error.message}")
            status = "damaged"
        rows.append(
            {
                "run": run.id,
                "status": status,
                "step": checkpoints[-1].step if checkpoints else None,
                "accuracy": _accuracy(measured["values"]) if measured else None,
            }
        )
    if json:
        answer({"schema": 1, "command": "runs ls", "values": rows})
        return
    if not rows:
        note(f"no runs in {folder}; train one: gmmc train digits_gen")
    for row in rows:
        accuracy = "" if row["accuracy"] is None else f"test accuracy {row['accuracy']:.2%}"
        step = "no checkpoint" if row["step"] is None else f"step {row['step']:,}"
        print(f"{visible(str(row['run']))}  {row['status']:11}  {step:13}  {accuracy}")


def _accuracy(values: dict[str, Any]) -> float | None:
    """The accuracy among the values of a result; None where another program has put something else there."""
    accuracy = values.get("accuracy")
    return accuracy if isinstance(accuracy, float) else None


@app.command("show", epilog="Example:\n\ngmmc runs show")
def show(
    name: Annotated[str | None, typer.Argument(metavar="RUN", help="The run, as by --run.", show_default=False)] = None,
    run: RunName = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Show a run's provenance, checkpoints and last metrics."""
    from gmmcli.run import open_run

    if name and run:
        raise RecipeError("runs show shows one run", f"leave out {name} or --run {run}")
    found = open_run(name or run, runs_dir)
    logged = [line for line in found.metrics() if "loss" in line]
    values = {
        "path": str(found.path),
        "provenance": found.provenance,
        "checkpoints": [checkpoint.step for checkpoint in found.checkpoints],
        "best": found.checkpoint(best=True).progress,
        "last_metrics": logged[-1] if logged else None,
    }
    if json:
        answer({"schema": 1, "command": "runs show", "run": found.id, "values": values})
        return
    for key, value in values.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                print(f"  {name}: {item}")
        else:
            print(f"{key}: {value}")


def _meant(run: str | None, runs_dir: Path | None) -> "list[Run]":
    """The run that is named; without a name all runs."""
    from gmmcli.run import default_runs_dir, list_runs, open_run

    return list_runs(runs_dir or default_runs_dir()) if run is None else [open_run(run, runs_dir)]


def _tell(command: str, found: "dict[str, list[str]]", nothing: str, json: bool, dry_run: bool = False) -> None:
    """Answer with a line for each thing found of each run."""
    if json:
        answer(
            {"schema": 1, "command": command, "dry_run": dry_run, "values": [{"run": run, "found": lines} for run, lines in found.items()]}
        )
        return
    for run, lines in found.items():
        for line in lines:
            print(visible(f"{run}: {'would have ' * dry_run}{line}"))
    if not any(found.values()):
        print(nothing)


Named = Annotated[str | None, typer.Option("--run", help="Run by path, id, unique prefix or recipe. Default: all.", show_default=False)]


@app.command("check", epilog="Example:\n\ngmmc runs check")
def check(run: Named = None, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Read every file of runs and say what is damaged (exit 6) or left over from a crash."""
    from gmmcli.upkeep import faults, litter

    runs = _meant(run, runs_dir)
    damaged = {one.id: faults(one) for one in runs}
    _tell("runs check", {one.id: [*damaged[one.id], *(f"left over: {path}" for path in litter(one))] for one in runs}, "all intact", json)
    if n := sum(bool(lines) for lines in damaged.values()):
        raise CheckpointError(f"{n} of {len(runs)} runs are damaged", "gmmc runs repair sets damaged checkpoints aside")


@app.command("repair", epilog="Example:\n\ngmmc runs repair --dry-run")
def repair(run: Named = None, dry_run: DryRun = False, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Set damaged checkpoints aside, remove what crashes have left, and record which trainings were killed.

    Nothing is deleted that was ever complete. Runs that are being trained are passed over.
    """
    from gmmcli import upkeep

    runs = [one for one in _meant(run, runs_dir) if run is not None or not one.is_locked]
    _tell("runs repair", {one.id: upkeep.repair(one, dry_run) for one in runs}, "nothing to repair", json, dry_run)


@app.command("gc", epilog="Example:\n\ngmmc runs gc --keep 1 --dry-run")
def gc(
    keep: Annotated[int, typer.Option("--keep", min=1, help="Newest checkpoints to keep of each run; the best stays as well.")] = 1,
    run: Named = None,
    dry_run: DryRun = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Remove old checkpoints, never the newest intact one nor the best, nor any of a run that is being trained."""
    from gmmcli.upkeep import thin

    runs = [one for one in _meant(run, runs_dir) if run is not None or (one.checkpoints and not one.is_locked)]
    _tell("runs gc", {one.id: thin(one, keep, dry_run) for one in runs}, "nothing to remove", json, dry_run)
