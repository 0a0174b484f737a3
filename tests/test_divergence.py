"""Divergence, provoked: counted as it is, and nothing that is not finite is saved."""

from pathlib import Path

import torch

import divergence
from gmmcli.checkpoint import Checkpoint, Part

CALM = {"learning rate": 3e-3, "step size": 0.3, "beta": 0.5, "sampler": "fixed-length", "margin": 2.0, "seed": 1}
WILD = CALM | {"beta": 1e6, "margin": 0.0}
SMALL = ("data.batch_size=512", "optim.warmup_steps=0", "chains.buffer_size=100", "chains.start.rank=8")


def test_a_training_that_cannot_end_is_counted_as_diverged_and_saves_nothing_that_is_not_finite() -> None:
    row = divergence.provoked(WILD, 2, *SMALL, "log.checkpoint_every=1", "guard.max_rollbacks=1")
    assert (row["diverged"], row["rollbacks"], row["finished"], row["not finite"]) == (True, 1, False, 0)
    assert row["checkpoints"] >= 1


def test_a_calm_training_ends() -> None:
    row = divergence.provoked(CALM, 1, *SMALL)
    assert row == CALM | {"diverged": False, "rollbacks": 0, "finished": True, "warned": False, "checkpoints": 1, "not finite": 0}


def test_a_value_that_is_not_finite_is_found_in_any_part(tmp_path: Path) -> None:
    for name in ("model", "optimizer", "buffer"):
        weights = {"model": Part({"a": torch.zeros(2)}, {})}
        spoilt = weights | {name: Part({"a": torch.tensor([0.0, torch.nan])}, {})}
        assert divergence.finite(Checkpoint.save(tmp_path / name, 1, weights, {}))
        assert not divergence.finite(Checkpoint.save(tmp_path / name, 2, spoilt, {}))


def test_only_a_warning_before_the_first_divergence_counts() -> None:
    assert [divergence.came_of(events)["warned"] for events in (["chains", "rollback"], ["rollback", "chains"], ["chains"])] == [1, 0, 0]


def test_the_table_counts_by_factor_and_margin() -> None:
    came = {"rollbacks": 0, "checkpoints": 3, "not finite": 0}
    rows = [
        CALM | came | {"diverged": False, "finished": True, "warned": False},
        CALM | came | {"margin": 0.0, "diverged": True, "finished": True, "warned": True},
        CALM | came | {"margin": 0.0, "diverged": True, "finished": False, "warned": False, "learning rate": 3e-2, "not finite": 1},
    ]
    text = divergence.report(rows)
    assert "| all | 0 of 2 | 1 of 2 | 1 of 1 | 1 of 1 |" in text
    assert "| learning rate 0.03 | 0 of 1 | 0 of 1 | 0 of 0 | 0 of 0 |" in text
    assert "3 trainings, 2 diverged, 1 of these after a warning; 1 of 9 checkpoints" in text


def test_every_combination_is_met_once_a_seed() -> None:
    found = [tuple(setting.values()) for setting in divergence.settings(2)]
    assert len(found) == len(set(found)) == 2 * 3 * 2 * 2 * 2 * 2
