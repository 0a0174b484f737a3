"""Rollbacks: how far back, how often, and what continues from there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import GEN, JOINT, ROLLBACK, RUNAWAY, TWO, Begin, contents, cut_at, trained

from gmmcli.errors import DivergedError
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.storage import write_text
from gmmcli.train.guard import GuardedStep
from gmmcli.train.loop import train
from gmmcli.train.recovery import log_rollback
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step


@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_rollback_across_a_switch_goes_on_with_the_optimiser_of_the_step(begin: Begin, step: int) -> None:
    setup, run = begin(TWO, 'stages.1.optim={kind="sgd",learning_rate=0.01,ema_decay=0.5}', "log.checkpoint_every=1")
    train(setup, run, quiet=True)
    state = setup.restored(next(c for c in run.checkpoints if c.step == step))
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    while state.step < setup.n_steps:
        training_step(setup, state, update)
    again = state.save(Run.create(run.recipe, run.path.parent, []), setup.dataset)
    assert contents(again) == contents(run.checkpoint())


def test_a_training_that_rolls_back_over_a_switch_ends(begin: Begin) -> None:
    runaway = 'stages.1.optim={kind="sgd",learning_rate=1e30,ema_decay=0.5}'
    run = trained(*begin(TWO, runaway, ROLLBACK, "guard.lr_factor=1e-32", "log.checkpoint_every=4"))
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["to_step"]) for e in events] == [("rollback", 4)]
    assert events[0]["step"] > 6
    assert run.checkpoint().step == 10
    assert all(bool(tensor.isfinite().all()) for part in ("model", "weights") for tensor in run.checkpoint().tensors(part).values())


def test_divergence_stops_with_the_last_good_checkpoint_kept(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, "log.checkpoint_every=2")
    with pytest.raises(DivergedError, match="step 6"):
        train(setup, run, quiet=True)
    assert run.provenance["status"] == "diverged"
    last = run.metrics()[-1]
    assert (last["step"], last["event"]) == (6, "diverged")
    assert "step 6" in last["reason"]
    assert [c.step for c in run.checkpoints] == [2, 4]
    sane = trained(*begin(JOINT, "log.checkpoint_every=2"))
    reopened = run.model()
    for key, tensor in sane.checkpoints[1].tensors("model").items():
        assert torch.equal(reopened.state_dict()[key], tensor)
    assert torch.isfinite(reopened(torch.zeros(2, 1, 8, 8))).all()
    assert torch.isfinite(run.buffer().images).all()


def test_a_learning_rate_too_high_diverges(begin: Begin) -> None:
    setup, run = begin(GEN, "optim.learning_rate=30.0", "stages.0.objective.margin=0.0")
    with pytest.raises(DivergedError, match=r"diverged at step [2-5]"):
        train(setup, run, quiet=True)
    assert run.checkpoints == []


def test_a_rollback_with_a_lower_rate_reaches_the_end(begin: Begin) -> None:
    run = trained(*begin("optim.learning_rate=30.0", ROLLBACK, "guard.lr_factor=1e-4"))
    assert run.provenance["status"] == "finished"
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["to_step"], e["rollbacks"], e["lr_factor"]) for e in events] == [("rollback", 0, 1, 1e-4)]
    assert events[0]["step"] > 1
    after = run.metrics()[run.metrics().index(events[0]) + 1 :]
    assert [line["step"] for line in after] == [1, 2, 3, 4, 5]
    assert [line["lr"] for line in after] == pytest.approx([30.0 * 1e-4] * 5)
    assert run.checkpoint().progress["rollbacks"] == 1


def test_rollbacks_go_further_back_and_run_out(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_rollbacks=2", "log.checkpoint_every=1")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["step"]) for e in events] == [("rollback", 6), ("rollback", 6), ("diverged", 6)]
    assert [e["to_step"] for e in events[:-1]] == [5, 4]  # not twice to the state that led here
    assert [e["lr_factor"] for e in events[:-1]] == [0.5, 0.25]
    assert run.provenance["status"] == "diverged"


def test_a_rollback_without_checkpoints_starts_over_with_other_chains(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_rollbacks=1", "guard.lr_factor=1.0")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    lines = run.metrics()
    at = next(i for i, line in enumerate(lines) if "event" in line)
    assert lines[at]["to_step"] == 0
    first, second = lines[0], lines[at + 1]
    assert (first["step"], second["step"]) == (1, 1)
    assert first["lr"] == second["lr"]
    assert first["loss"] != second["loss"]  # the same weights on the same images, under other noise


def test_a_run_that_rolled_back_resumes_bit_for_bit(begin: Begin, tmp_path: Path) -> None:
    overrides = ("optim.learning_rate=30.0", ROLLBACK, "guard.lr_factor=1e-4", "log.checkpoint_every=2")
    run = trained(*begin(*overrides))
    cut = cut_at(run, 4, tmp_path)
    trained(Setup.prepare(cut.recipe), cut, resume=True)
    assert cut.checkpoint().progress["rollbacks"] == 1
    assert contents(cut.checkpoint()) == contents(run.checkpoint())
    assert [line for line in cut.metrics() if "event" in line] == [line for line in run.metrics() if "event" in line]


class Killed(BaseException):
    """As if the process had ended there."""


SANE_AFTER_A_ROLLBACK = (TWO, 'stages.1.optim={kind="sgd",learning_rate=1e30}', ROLLBACK, "guard.lr_factor=1e-32", "log.checkpoint_every=2")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_log_of_a_rollback_neither_loses_nor_doubles_it(begin: Begin, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    undisturbed = trained(*begin(*SANE_AFTER_A_ROLLBACK))
    setup, run = begin(*SANE_AFTER_A_ROLLBACK)
    log = Run.log

    def killed(run: Run, line: dict[str, Any]) -> None:
        if line.get("event") == "rollback":
            if when == "after":
                log(run, line)
            raise Killed
        log(run, line)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Run, "log", killed)
        train(setup, run, quiet=True)
    train(setup, run, resume=True, quiet=True)
    events, expected = ([line for line in one.metrics() if "event" in line] for one in (run, undisturbed))
    assert events == expected
    assert contents(run.checkpoint()) == contents(undisturbed.checkpoint())


def test_a_diverged_run_that_is_resumed_tells_its_divergence_once(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, "log.checkpoint_every=2")
    for resume in (False, True, True):
        with pytest.raises(DivergedError, match="step 6"):
            train(setup, run, resume=resume, quiet=True)
    assert [line["step"] for line in run.metrics() if line.get("event") == "diverged"] == [6]


def test_a_rollback_is_not_told_again_with_another_factor_or_by_a_state_without_its_reason(begin: Begin, tmp_path: Path) -> None:
    """Recipes may change guard.lr_factor before a resume; checkpoints of earlier versions have no reason."""
    run = trained(*begin(*SANE_AFTER_A_ROLLBACK))
    cut = cut_at(run, 8, tmp_path)
    recipe = Recipe.loads(cut.recipe.dumps(), overrides=["guard.lr_factor=1e-30"])
    write_text(cut.path / "recipe.toml", recipe.dumps())
    setup = Setup.prepare(recipe)
    train(setup, Run(cut.path), resume=True, quiet=True)
    state = setup.restored(cut.checkpoint())
    state.reason = ""
    log_rollback(setup, cut, state)
    events = [[(line["step"], line["rollbacks"]) for line in one.metrics() if line.get("event") == "rollback"] for one in (cut, run)]
    assert events == [[(7, 1), (7, 2)]] * 2
