"""``gmmc runs``."""

import typer

from gmmcli.cli.options import Json, RunName, RunsDir, answer, note
from gmmcli.errors import RunError

app = typer.Typer(no_args_is_help=True, help="List and show runs.")


@app.command("ls", epilog="Example:\n\ngmmc runs ls")
def ls(runs_dir: RunsDir = None, json: Json = False) -> None:
    """List the runs, oldest first: status, last saved step, test accuracy."""
    from gmmcli.run import default_runs_dir, list_runs
    from gmmcli.storage import file_stem

    rows = []
    for run in list_runs(runs_dir or default_runs_dir()):
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
                "accuracy": measured["values"]["accuracy"] if measured else None,
            }
        )
    if json:
        answer({"schema": 1, "command": "runs ls", "values": rows})
        return
    for row in rows:
        accuracy = "" if row["accuracy"] is None else f"test accuracy {row['accuracy']:.2%}"
        step = "no checkpoint" if row["step"] is None else f"step {row['step']:,}"
        print(f"{row['run']}  {row['status']:11}  {step:13}  {accuracy}")


@app.command("show", epilog="Example:\n\ngmmc runs show")
def show(run: RunName = None, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Show a run's provenance, checkpoints and last metrics."""
    from gmmcli.run import open_run

    found = open_run(run, runs_dir)
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
