"""What follows a divergence: back to a checkpoint that was good."""

from gmmcli.run import Run
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState


def rolled_back(setup: Setup, run: Run, diverged: TrainState, reason: str) -> TrainState:
    """Return to the last good state, with other randomness and a lower learning rate from there on, and record it in the run.

    A state from which training comes no further than a checkpoint's interval beyond the last divergence, at a lower rate at that,
    was not good: then further back.
    """
    again = diverged.rollbacks > 0 and diverged.step <= diverged.diverged_at + setup.recipe.log.checkpoint_every
    good = [c for c in run.checkpoints if not again or c.step < diverged.returned_to]
    state = setup.restored(good[-1]) if good else setup.initial_state()
    for checkpoint in run.checkpoints:
        if checkpoint.step > state.step:
            checkpoint.remove()
    state.rollbacks, state.diverged_at, state.returned_to = diverged.rollbacks + 1, diverged.step, state.step
    state.save(run, setup.dataset)  # a resume must know of it
    event = {
        "step": diverged.step,
        "event": "rollback",
        "to_step": state.step,
        "rollbacks": state.rollbacks,
        "lr_factor": setup.recipe.guard.lr_factor**state.rollbacks,
        "reason": reason,
    }
    run.log(event)
    return state
