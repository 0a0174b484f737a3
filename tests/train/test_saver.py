"""Checkpoints that are written while training goes on."""

import errno
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from trainings import GEN, JOINT, RUNAWAY, Begin, contents, trained

from gmmcli import checkpoint as checkpoint_module
from gmmcli.errors import CheckpointError, DivergedError
from gmmcli.run import Run
from gmmcli.train.guard import GuardedStep
from gmmcli.train.loop import train
from gmmcli.train.saver import Saver
from gmmcli.train.step import training_step

Write = Callable[[Path, Mapping[str, Any], Mapping[str, str]], str]
PATIENCE = 60.0


class Gate:
    """Holds every writer before a part until it is opened."""

    def __init__(self, write: Write, part: str) -> None:
        self.write, self.part = write, part
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        if path.stem == self.part:
            self.reached.set()
            assert self.open.wait(PATIENCE)
        return self.write(path, tensors, metadata)


@contextmanager
def gate(monkeypatch: pytest.MonkeyPatch, part: str) -> Iterator[Gate]:
    found = Gate(checkpoint_module.write_tensors, part)
    monkeypatch.setattr(checkpoint_module, "write_tensors", found)
    try:
        yield found
    finally:
        found.open.set()


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, error: OSError) -> None:
    """Let the disk fail while the checkpoint of a step is written, after half of a file."""
    write = checkpoint_module.write_tensors

    def failing(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        if path.parent.name == f".step-{step:08d}" and path.stem == "optimizer":
            path.write_bytes(b"half of it")
            raise error
        return write(path, tensors, metadata)

    monkeypatch.setattr(checkpoint_module, "write_tensors", failing)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("part", ["model", "buffer"])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("chains.dtype=uint8", "model.backbone.norm=batch"),
        ("optim.kind=sgd", "optim.ema_decay=0.9", "model.backbone.norm=batch", "chains.start.kind=gaussian", "chains.start.rank=3"),
    ],
    ids=["plain", "bytes", "average"],
)
def test_steps_taken_while_a_state_is_written_are_not_in_it(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, overrides: tuple[str, ...]
) -> None:
    setup, run = begin(*overrides)
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    for _ in range(2):
        training_step(setup, state, update)
    at_once = state.save(Run.create(run.recipe, tmp_path / "at once", []), setup.dataset)
    with Saver(run, setup.dataset) as saver, gate(monkeypatch, part) as writing:
        saver.begin(state)
        assert writing.reached.wait(PATIENCE)
        for _ in range(30):  # of a hundred chains most are visited, many twice
            training_step(setup, state, update)
        assert run.checkpoints == []
        writing.open.set()
        saver.wait()
    saved = run.checkpoint()
    assert saved.step == 2
    assert contents(saved) == contents(at_once)
    assert saved.progress == at_once.progress
    later = contents(state.save(run, setup.dataset))
    assert all(later[key] != contents(saved)[key] for key in ("buffer/images", "model/backbone.stem.weight"))


def test_a_second_state_waits_for_the_first(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin()
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    with Saver(run, setup.dataset) as saver, gate(monkeypatch, "model") as writing:
        training_step(setup, state, update)
        saver.begin(state)
        assert writing.reached.wait(PATIENCE)
        training_step(setup, state, update)
        second = threading.Thread(target=saver.begin, args=(state,))
        second.start()
        second.join(0.1)
        assert second.is_alive()
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == [".step-00000001"]
        writing.open.set()
        second.join(PATIENCE)
        assert run.checkpoints[0].step == 1
    assert [c.step for c in run.checkpoints] == [1, 2]
    assert len(threading.enumerate()) == 1  # no thread is left


def test_a_buffer_keeps_nothing_once_its_state_is_written_or_lost(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin()
    state = setup.initial_state()
    assert state.chains is not None
    state.save(run, setup.dataset)
    assert state.chains.buffer._snapshots == []
    state.step = 1
    monkeypatch.setattr(checkpoint_module, "write_tensors", lambda *_: (_ for _ in ()).throw(FULL))
    with pytest.raises(CheckpointError):
        state.save(run, setup.dataset)
    assert state.chains.buffer._snapshots == []


def test_a_full_disk_ends_the_training_at_the_next_save_and_loses_nothing(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = (JOINT, "log.checkpoint_every=2", "log.keep=2")
    setup, run = begin(*overrides)
    with monkeypatch.context() as disk:
        fail_at(disk, 6, FULL)
        with pytest.raises(CheckpointError, match=r"^the checkpoint of step 6 cannot be written to .*: No space left on device$") as error:
            train(setup, run, quiet=True)
    assert "make room" in error.value.hint
    assert run.metrics()[-1]["step"] == 8
    assert run.provenance["status"] == "failed"
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    trained(setup, run, resume=True)
    assert contents(run.checkpoint()) == contents(trained(*begin(*overrides)).checkpoint())


@pytest.mark.parametrize(("every", "step"), [(9, 9), (0, 10)])
def test_a_full_disk_at_the_end_is_no_success(begin: Begin, monkeypatch: pytest.MonkeyPatch, every: int, step: int) -> None:
    setup, run = begin(GEN, f"log.checkpoint_every={every}")
    fail_at(monkeypatch, step, FULL)
    with pytest.raises(CheckpointError, match=f"the checkpoint of step {step} cannot be written"):
        train(setup, run, quiet=True)
    assert run.provenance["status"] == "failed"
    assert run.checkpoints == []


def test_another_error_is_not_hidden_by_the_writers(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin(RUNAWAY, "log.checkpoint_every=5")
    fail_at(monkeypatch, 5, FULL)
    with pytest.raises(CheckpointError) as error:  # a rollback would have nothing to return to
        train(setup, run, quiet=True)
    assert isinstance(error.value.__context__, OSError | DivergedError)
    with pytest.raises(KeyError), Saver(run, setup.dataset) as saver:
        state = setup.initial_state()
        state.step = 5
        saver.begin(state)
        raise KeyError
