"""Rollback: what follows a divergence."""

from typing import Any

from gmmcli.errors import DivergedError
from gmmcli.progress import ProgressBar
from gmmcli.run import Run
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState


def recover(setup: Setup, run: Run, bar: ProgressBar, diverged: TrainState, error: DivergedError) -> TrainState:
    """Return to an earlier state, from which training continues with other randomness and a lower learning rate.

    Raises:
        DivergedError: the recipe says stop, or its rollbacks are used up.
    """
    guard = setup.recipe.guard
    if guard.on_divergence == "stop" or diverged.rollbacks >= guard.max_rollbacks:
        log_once(run, {"step": diverged.step, "event": "diverged", "reason": error.message})
        raise error
    state = _last_good(setup, run, diverged)
    for checkpoint in run.checkpoints:
        if checkpoint.step > state.step:
            checkpoint.remove()
    state.rollbacks, state.diverged_at, state.returned_to, state.reason = diverged.rollbacks + 1, diverged.step, state.step, error.message
    state.save(run, setup.dataset)  # a resume must know of the rollback
    log_rollback(setup, run, state)
    factor = guard.lr_factor**state.rollbacks
    bar.warn(f"gmmc: {error.message}; rolled back to step {state.step}: new chain noise, learning rate x {factor:g}")
    return state


def log_rollback(setup: Setup, run: Run, state: TrainState) -> None:
    """Log the last rollback that a state knows of, unless it is in the log: a kill may come between the state and the log."""
    if state.rollbacks:
        factor = setup.recipe.guard.lr_factor**state.rollbacks
        event = {"step": state.diverged_at, "event": "rollback", "to_step": state.returned_to, "rollbacks": state.rollbacks}
        log_once(run, event | {"lr_factor": factor, "reason": state.reason})


def log_once(run: Run, event: dict[str, Any]) -> None:
    """Log an event that a resume would repeat: what was lost with a kill happens again, and is the same event."""
    if not any(all(line.get(key) == event.get(key) for key in ("step", "event", "rollbacks")) for line in run.metrics()):
        run.log(event)


def _last_good(setup: Setup, run: Run, diverged: TrainState) -> TrainState:
    """The newest checkpoint's state; the initial state where there is none.

    A state after which training diverged again within one checkpoint interval of the last divergence, although at a lower rate, was
    not good: then an earlier one.
    """
    again = diverged.rollbacks > 0 and diverged.step <= diverged.diverged_at + setup.recipe.log.checkpoint_every
    good = [c for c in run.checkpoints if not again or c.step < diverged.returned_to]
    return setup.restored(good[-1] if good else None)
