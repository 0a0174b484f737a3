"""``gmmc train``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Json, Quiet, RunsDir, answer, note
from gmmcli.errors import DataError, RecipeError, RunError
from gmmcli.layout import show, width_of

if TYPE_CHECKING:
    from gmmcli.train.setup import Setup
    from gmmcli.train.validate import Distance

EPILOG = (
    "Examples:\n\ngmmc train digits_gen\n\ngmmc train recipes/svhn_gen.toml --set optim.learning_rate=3e-4 --dry-run\n\ngmmc train --resume"
)


WORTH_SAYING = 60  # seconds that a training takes at least


def train_command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A TOML file, or the name of a shipped recipe.", show_default=False, autocompletion=completion.recipes),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, say optim.learning_rate=3e-4. Repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run in its directory, with its recipe.")] = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="With --resume: the run to resume. Default: $GMMC_RUN, else the newest.", autocompletion=completion.runs
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved recipe, memory, disk and time without training.")] = False,
    from_intact: Annotated[
        bool, typer.Option("--from-intact", help="With --resume: set damaged checkpoints aside, and resume from the newest intact one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train even what is beyond this machine, or a year.")] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a recipe in a new run directory, or resume a run; then measure the test accuracy.

    Ctrl-C, SIGTERM or a closed terminal saves the state and stops (exit 130, 143, 129); SIGUSR1 saves it and goes on.

    A dataset that gmmc data download knows is downloaded where it is not on disk, unless --offline forbids it.

    torchrun --nproc-per-node N -m gmmcli train RECIPE trains in N processes.

    A diverging loss stops the training (exit 5), unless the recipe sets guard.on_divergence = "rollback".
    """
    if resume and (recipe or overrides or dry_run):
        raise RecipeError("--resume uses the run's recipe", "leave out the recipe, --set and --dry-run; choose the run with --run")
    if not resume and from_intact:
        raise RecipeError("--from-intact needs --resume", "a new training has no checkpoints")
    if not resume and run:
        raise RecipeError("--run needs --resume", "a new training gets a new run directory")
    if not resume and recipe is None:
        raise RecipeError("gmmc train needs a recipe", "`gmmc recipes ls` lists the shipped ones; try digits_gen")
    from gmmcli.distributed import barrier, from_main, main_first, world
    from gmmcli.evaluate.classification import accuracy
    from gmmcli.evaluate.subject import Subject
    from gmmcli.recipe import Recipe
    from gmmcli.run import Run, default_runs_dir, open_run
    from gmmcli.train.loop import train
    from gmmcli.train.needs import Needs
    from gmmcli.train.plan import duration, plan
    from gmmcli.train.setup import Setup
    from gmmcli.upkeep import newest_intact

    if dry_run:
        planned = plan(Recipe.load(str(recipe), overrides or ()), runs_dir or default_runs_dir(), force)
        answer(planned.document()) if json else print(planned.text(width_of(sys.stdout)))
        return
    if resume:
        found = open_run(run, runs_dir, unfinished=True)
        if found.provenance.get("status") == "imported":
            raise RunError(
                f"run {found.id} was imported: it has no training to resume", "train a recipe from its weights: --set init.from=RUN"
            )
        if from_intact:
            intact = newest_intact(found)
            for checkpoint in [c for c in found.checkpoints if c.step > intact.step]:
                note(f"set aside {checkpoint.path}: it is damaged")
                checkpoint.set_aside()
        complete = found.provenance.get("status") == "finished" and found.checkpoints and found.card().gamma2 is not None
        if complete and found.card().recipe.epochs == found.recipe.epochs and (done := found.result("eval accuracy")):
            note(f"run {found.path} is finished: nothing to resume")
            if json:
                answer(done | {"command": "train"})
            return
        setup = Setup.prepare(found.recipe, main_first(found.dataset))
        distance = _distance(setup)
    else:
        setup = Setup.prepare(Recipe.load(str(recipe), overrides or ()))
        needs = Needs.of(setup)
        if not force:
            needs.check(setup, runs_dir or default_runs_dir())
        if needs.seconds > WORTH_SAYING:
            steps = f"{setup.n_steps:,} steps, on average at least {needs.seconds / setup.n_steps:.2g} s each"
            note(f"this training takes at least {duration(needs.seconds)} on this {setup.device}: {steps}", quiet)
        distance, _ = _distance(setup), setup.initial_weights
        barrier()  # errors up to here, in any process, leave no run directory
        created = str(Run.create(setup.recipe, runs_dir or default_runs_dir(), sys.argv).path) if world().is_main else ""
        found = Run(Path(from_main(created)))
    note(f"run {found.path}", quiet)
    with found.locked():
        state = train(setup, found, resume=resume, quiet=quiet, distance=distance)
        subject = Subject(found, state.step, found.card(), state.published, setup.dataset, "test")
        result = accuracy(subject).result
    if json:
        answer(result | {"command": "train"})
        return
    accuracy, (low, high) = result["values"]["accuracy"], result["values"]["ci95"]
    show(found.path, f"test accuracy {accuracy:.2%} (n = {result['n']}, 95% interval {low:.2%} to {high:.2%})")


def _distance(setup: "Setup") -> "Distance | None":
    """The Frechet distance of samples to the validation images; None for a recipe without ``log.validate_samples``."""
    from gmmcli.metrics.features.spaces import quick_space
    from gmmcli.metrics.frechet import Moments, frechet_distance
    from gmmcli.train.validate import Distance

    if not setup.recipe.validates_samples:
        return None
    space = quick_space(setup.device)
    if len(setup.validation) < 2:
        raise DataError("log.validate_samples needs at least two validation images, and there is one", "hold out more of them")
    real = Moments.of(space.embed(setup.validation))
    return Distance(space.name, lambda samples: frechet_distance(Moments.of(space.embed(samples)), real))
