"""A few of the faults of ``make faults``, and that a fault which is not survived is noticed."""

from pathlib import Path

import pytest
import torch
from damage import DAMAGES, damaged
from points import DEATH, Gate, die, full, in_child

from faults import DIS, RECIPES, SAVES, at_every_point, begin
from gmmcli.checkpoint import Checkpoint
from gmmcli.train.loop import train


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A fork of a process with more may wait for ever."""
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("fault", "expected"), [(die, DEATH), (full, 99)])
def test_a_training_that_is_struck_at_a_write_ends_in_the_same_weights(fault: object, expected: int, tmp_path: Path) -> None:
    tally = at_every_point("training", fault, expected, 70, tmp_path)
    assert (tally.tried, tally.wrong) == (2, [])


def test_what_is_not_survived_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.recovered", lambda folder: ["another truth"] if folder.name == "1" else ["the truth"])
    monkeypatch.setitem(RECIPES, "training", (DIS,))
    tally = at_every_point("training", die, DEATH, 1000, tmp_path)
    assert tally.wrong == ["training at 1: other weights or events"]


def test_every_damage_of_the_newest_weights_is_met(tmp_path: Path) -> None:
    setup, run = begin(tmp_path / "a", (DIS, *SAVES[:2]))
    in_child(lambda: train(setup, run, quiet=True) and None)
    file = run.checkpoint().path / "model.safetensors"
    whole = file.read_bytes()
    for name in ("with a bit flipped", "removed"):
        assert DAMAGES[name](file)
        assert in_child(lambda: damaged(run.path, file)) == (0, [])
        file.write_bytes(whole)


def test_damaged_weights_that_are_used_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin(tmp_path / "a", (DIS, *SAVES[:2]))
    in_child(lambda: train(setup, run, quiet=True) and None)
    file = run.checkpoint().path / "model.safetensors"
    DAMAGES["with a bit flipped"](file)
    monkeypatch.setattr(Checkpoint, "_verified", lambda checkpoint, name: checkpoint.path / name)
    code, wrong = in_child(lambda: damaged(run.path, file))
    assert code == 0 and "sample uses damaged weights" in wrong


def test_the_gate_counts_changes_below_its_folder_alone(tmp_path: Path) -> None:
    def work() -> int:
        gate = Gate(tmp_path / "in", 0, die)
        (tmp_path / "in").mkdir()
        gate.arm()
        for place in (tmp_path, tmp_path / "in"):
            (place / "a").write_text("x")  # opened for writing
            (place / "a").read_text()
            (place / "a").rename(place / "b")
            (place / "b").unlink()
        return gate.passed

    assert in_child(work) == (0, 3)
