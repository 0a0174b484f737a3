"""A few of the faults of ``make faults``, and that a fault which is not survived is noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import DAMAGES, damaged
from points import DEATH, Gate, die, full, in_child

from faults import DIS, SAVES, WORK, Work, at_every_point, begin, strike, train_to_the_end
from gmmcli.checkpoint import Checkpoint
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from gmmcli.upkeep import litter, repair


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A fork of a process with more may wait for ever."""
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("fault", "expected"), [(die, DEATH), (full, 99)])
def test_a_training_that_is_struck_at_a_write_ends_in_the_same_weights(fault: Callable[[], None], expected: int, tmp_path: Path) -> None:
    tally = at_every_point("training", fault, expected, 100, tmp_path)
    assert (tally.tried, tally.wrong) == (2, [])


def test_what_is_not_survived_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.recovered", lambda folder, kind: ["another truth"] if folder.name == "1" else ["the truth"])
    monkeypatch.setitem(WORK, "training", Work((DIS,), train_to_the_end))
    tally = at_every_point("training", die, DEATH, 1000, tmp_path)
    assert tally.wrong == ["training at 1: other weights, events or figures"]


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
            (place / "a").write_text("x")  # opened for writing, and written
            (place / "a").read_text()
            (place / "a").rename(place / "b")
            (place / "b").unlink()
        return gate.passed

    assert in_child(work) == (0, 4)


def test_a_fault_within_a_write_leaves_half_of_it(tmp_path: Path) -> None:
    def work() -> None:
        Gate(tmp_path, 2, full, only="log").arm()
        (tmp_path / "other").write_text("whole")
        with (tmp_path / "log").open("ab") as file:
            file.write(b"12345678")

    (tmp_path / "log").write_text("0\n")
    assert in_child(work) == (99, "OSError: [Errno 28] No space left on device")
    assert [(tmp_path / name).read_text() for name in ("log", "other")] == ["0\n1234", "whole"]


FULL = [
    ("training", "metrics.jsonl", 6, "failed"),
    ("training", "preview-", 2, "failed"),
    ("training", "provenance", 4, "created"),
    ("resume", "metrics.jsonl", 2, "killed"),
    ("resume", ".step-", 3, "failed"),
    ("evaluation", "results", 3, "finished"),
]


@pytest.mark.parametrize(("kind", "file", "at", "status"), FULL)
def test_a_disk_that_is_full_at_one_file_is_an_error_of_the_system_and_a_resume_ends_well(
    kind: str, file: str, at: int, status: str, tmp_path: Path
) -> None:
    code, said = strike(tmp_path / "a", kind, at, full, only=file)
    assert (code, str(said)[:24]) == (99, "OSError: [Errno 28] No s")
    (path,) = (tmp_path / "a" / "runs").iterdir()
    run = Run(path)
    assert run.status == status
    n_steps = 5 if kind == "training" else 10

    def again() -> list[object]:
        train(Setup.prepare(run.recipe), run, resume=True, quiet=True)
        return [run.status, [line["step"] for line in run.metrics() if "loss" in line], repair(run), litter(run)]

    assert in_child(again) == (0, ["finished", [*range(1, n_steps + 1)], [], []])
