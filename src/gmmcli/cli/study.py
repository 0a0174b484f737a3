"""``gmmc study``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Json, Quiet, RunsDir, answer, note
from gmmcli.cli.report import present
from gmmcli.errors import GmmcError, RecipeError, RunError
from gmmcli.layout import show
from gmmcli.named import radii

if TYPE_CHECKING:
    from gmmcli.study.schedule import Schedule
    from gmmcli.study.spec import Training

STUDYS_OWN = {"run": "--run", "runs_dir": "--runs-dir", "json": "--json", "help": "--help"}
"""Options of evaluations that a study sets, by the names of their parameters."""
EPILOG = (
    "Examples:\n\ngmmc study studies/digits.toml --jobs 2\n\n"
    "gmmc study mnist_10k --set data.source.kind=npz --set data.source.path=mnist_10k.npz --dry-run"
)


def study_command(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped study.", autocompletion=completion.studies)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key in every model's recipe. Repeatable.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Number of trainings to run in parallel, sharing the cores.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory of the study. Default: study-NAME in the runs directory.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the remaining tasks without running them.")] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train and evaluate every model of a study, then write its report.

    Finished tasks are skipped: run the same command again to resume after Ctrl-C, or after adding to the study.

    A training that diverges counts as a result. An evaluation whose data is missing is skipped with a message.
    """
    from gmmcli.run import default_runs_dir
    from gmmcli.storage import write_text
    from gmmcli.study.schedule import Schedule
    from gmmcli.study.spec import Study

    plan, path = Study.load(study, overrides or ())
    trainings = plan.trainings(path.parent)
    for words in dict.fromkeys(words for training in trainings for words in training.evaluations):
        check_words(context, words)
    directory = out or (runs_dir or default_runs_dir()) / f"study-{plan.name}"
    schedule = Schedule(directory, trainings, jobs)
    if dry_run:
        _show(schedule, trainings, json)
        return
    note(f"study {directory}, tasks: {schedule.n_tasks}", quiet)
    write_text(directory / "study.toml", path.read_text(encoding="utf-8"))
    done = schedule.run(f"study {plan.name}", quiet)
    for one in (one for one in done if one.exit_code and not one.failed):
        note(f"{one.model} seed {one.seed}: {' '.join(one.words)}: {one.message}")
    failed = [one for one in done if one.failed]
    try:
        present(None, directory, runs_dir, None, json, quiet, command="study")
    except RunError:  # no training has ended
        if not failed:
            raise
    if failed:
        first = failed[0]
        task = f"{first.model} seed {first.seed}, `gmmc {' '.join(first.words)}`"
        raise GmmcError(
            f"{len(failed)} of {schedule.n_tasks} tasks failed; the first: {task}: {first.message}",
            f"see {directory / 'logs'}; run the same command again to retry",
        )


def check_words(context: typer.Context, words: tuple[str, ...]) -> None:
    """Raise RecipeError for an evaluation that is not a valid gmmc command, before anything is trained."""
    command: Any = context.find_root().command
    rest, evaluation = list(words), " ".join(words)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        if name not in command.commands:
            raise RecipeError(f"evaluation `{evaluation}`: no such command {name!r}", f"one of: {', '.join(command.commands)}")
        command = command.commands[name]
    if words[0] not in {"eval", "attack", "tsne", "sample"}:
        raise RecipeError(f"evaluation `{evaluation}` does not measure a run", "give eval, attack, tsne or sample")
    given = command.make_context(evaluation, [*rest], resilient_parsing=True)  # which calls nothing, not even --help
    if forbidden := [option for name, option in STUDYS_OWN.items() if given.get_parameter_source(name).name == "COMMANDLINE"]:
        raise RecipeError(
            f"evaluation `{evaluation}`: {', '.join(forbidden)} cannot be used in a study", "leave it out: the study sets the run"
        )
    try:
        asked = command.make_context(evaluation, [*rest]).params
        if "eps" in asked:
            radii(asked["eps"], asked.get("norm", "linf") or "l2")
    except RecipeError as error:
        raise RecipeError(f"evaluation `{evaluation}`: {error.message}", error.hint) from error
    except typer.TyperException as error:
        verb = " ".join(words[: len(words) - len(rest)])
        why = error.format_message() if hasattr(error, "format_message") else str(error)
        raise RecipeError(f"evaluation `{evaluation}`: {why}", f"see gmmc {verb} --help") from error


def _show(schedule: "Schedule", trainings: "list[Training]", json: bool) -> None:
    """Print the remaining tasks of each training."""
    left = [[" ".join(words) for words in schedule.remaining(training)] for training in trainings]
    if json:
        rows = [{"model": t.model, "seed": t.recipe.seed, "left": tasks} for t, tasks in zip(trainings, left, strict=True)]
        answer({"schema": 1, "command": "study --dry-run", "values": rows})
        return
    for training, tasks in zip(trainings, left, strict=True):
        show(f"{training.model}, seed {training.recipe.seed}: {', '.join(tasks) or 'done'}")
    show(f"{sum(map(len, left))} of {schedule.n_tasks} tasks remaining")
