"""The training loop: after which steps a training logs, draws previews, validates, saves and stops."""

from dataclasses import dataclass
from signal import SIGINT

from gmmcli.distributed import most, world
from gmmcli.errors import DivergedError, StoppedError
from gmmcli.model_card import without_paths
from gmmcli.progress import ProgressBar
from gmmcli.run import Run
from gmmcli.signals import StopSignals
from gmmcli.train.guard import GuardedStep
from gmmcli.train.log import TrainingLog
from gmmcli.train.preview import save_preview
from gmmcli.train.recovery import log_rollback, recover
from gmmcli.train.resuming import changes
from gmmcli.train.saver import Saver
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.status import recorded
from gmmcli.train.step import training_step
from gmmcli.train.validate import Distance, validate

AFTER_A_SWITCH = 7  # steps that are logged one by one: what a switch of stages does to energies shows there (Table 10)


def train(setup: Setup, run: Run, *, resume: bool = False, quiet: bool = False, distance: Distance | None = None) -> TrainState:
    """Train a run to its end.

    Args:
        setup: what is trained.
        run: where it is written.
        resume: start from the newest checkpoint, where there is one.
        quiet: print warnings only.
        distance: of samples to the validation images; a recipe with ``log.validate_samples`` needs it.

    Raises:
        DataError: the run is resumed on other images than it was started on.
        DivergedError: the loss diverged, and the recipe says stop or its rollbacks are used up; the last good checkpoint is kept.
        StoppedError: SIGINT, SIGTERM or SIGHUP arrived, in any process; the state is saved, as SIGUSR1 has it without a stop.
        CheckpointError: the newest checkpoint is damaged.
        RecipeError: the recipe has changed since in what a resume must keep.
        OSError: a file cannot be written.
    """
    if setup.recipe.validates_samples and distance is None:
        raise ValueError("log.validate_samples needs a distance")
    newest = run.checkpoint() if resume and run.checkpoints else None
    changed = []
    if newest:
        changed = changes(without_paths(run.card().recipe), without_paths(setup.recipe), setup.loader.steps_per_epoch)
    try:
        if newest is None:
            run.keep_fingerprint(setup.dataset)
        else:
            run.check_fingerprint(setup.dataset)
        state = setup.restored(newest)
    except BaseException:
        if newest is None:  # what the end of an earlier training was is still true
            run.describe(status="failed")
        raise
    if resume:
        run.forget_after(state.step)
        log_rollback(setup, run, state)
    with (
        StopSignals(launched=world().size > 1) as stop,
        ProgressBar(run.recipe.name, setup.n_steps, quiet) as bar,
        recorded(run, setup.device, setup.n_steps),
        Saver(run, setup.dataset) as saver,
    ):
        if newest and (before := newest.progress.get("processes", 1)) != world().size:
            bar.warn(
                f"gmmc: processes: {world().size}, before: {before}; random numbers are each process's own, so results differ a little"
            )
        for line in changed:
            bar.warn(f"gmmc: {line}")
        for warning in setup.warnings:
            bar.warn(f"gmmc: {warning}")
        while state.step < setup.n_steps:
            try:
                with TrainingLog(setup, run, bar, state) as log:
                    _advance(setup, run, state, stop, log, saver, distance)
            except DivergedError as error:
                saver.wait()
                state = recover(setup, run, bar, state, error)
        saver.wait()
        _finish(setup, run, state)
    return state


@dataclass(frozen=True)
class Due:
    """What the recipe's ``[log]`` schedules after a step; after the last step, all that it schedules at all."""

    log: bool
    preview: bool
    validate: bool
    save: bool
    last: bool

    @classmethod
    def after(cls, step: int, setup: Setup) -> "Due":
        """What is due after step number ``step``, counted from 1."""
        intervals, last = setup.recipe.log, step == setup.n_steps

        def due(every: int) -> bool:
            return every > 0 and (last or step % every == 0)

        return cls(due(intervals.every), due(intervals.preview_every), due(intervals.validate_every), due(intervals.checkpoint_every), last)

    @property
    def any(self) -> bool:
        """Whether anything is due, for which the host waits for the device."""
        return self.log or self.preview or self.validate or self.save


def _advance(
    setup: Setup, run: Run, state: TrainState, stop: StopSignals, log: TrainingLog, saver: Saver, distance: Distance | None
) -> None:
    """Take the remaining steps, and after each do what is due."""
    update = GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device)
    near_a_switch = {switch + i for switch in setup.switches for i in range(AFTER_A_SWITCH + 1)}
    while state.step < setup.n_steps:
        report = training_step(setup, state, update)
        due = Due.after(state.step, setup)
        asked = most(stop.wish())
        stopped = asked > 1
        checked = setup.device.type == "cpu" or due.any or bool(asked)
        diverged = checked and not update.healthy
        if due.log or diverged or state.step in near_a_switch:
            log.write(state, report, update, watched=due.log)
        if diverged:
            update.raise_if_diverged(state.step)
        if checked:
            log.check_growth(state.step, float(update.loss))
        if due.preview:
            run.check_there()
            save_preview(setup, state, run.path / "samples")
        improved = due.validate and validate(setup, state, log, report.stage, distance)
        if (due.save or improved or asked) and not due.last:  # the last state is saved with its gamma^2
            saver.begin(state)
        if stopped and not due.last:
            saver.wait()
            reason = stop.received.name if stop.received else "a signal to another process"
            raise StoppedError(
                f"{reason} after step {state.step}; the state is saved",
                f"resume with: gmmc train --resume --run {run.path}",
                stop.received or SIGINT,
            )


def _finish(setup: Setup, run: Run, state: TrainState) -> None:
    """Estimate gamma^2 of the last and of the best model, and save both."""
    state.estimate_gamma2(setup.loader.split)
    state.save(run, setup.dataset)
    checkpoint = run.checkpoint(best=True)
    if checkpoint.step != state.step:
        best = setup.restored(checkpoint)
        best.estimate_gamma2(setup.loader.split)
        best.save(run, setup.dataset)
