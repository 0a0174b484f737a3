"""Checkpoints that are written while training goes on."""

import errno
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forked import stopped
from trainings import GEN, JOINT, ROLLBACK, RUNAWAY, Begin, contents, trained

from gmmcli import checkpoint as checkpoint_module
from gmmcli.errors import DivergedError, StoppedError
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


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, part: str = "optimizer") -> None:
    """Let the disk be full while the checkpoint of a step is written, after half of a part."""
    write = checkpoint_module.write_tensors

    def failing(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        if path.parent.name == f".step-{step:08d}" and path.stem == part:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, tensors, metadata)

    monkeypatch.setattr(checkpoint_module, "write_tensors", failing)


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
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    setup, run = begin(*overrides)
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    for _ in range(2):
        training_step(setup, state, update)
    at_once = state.save(Run.create(run.recipe, tmp_path / "at once", []), setup.dataset)
    with Saver(run, setup.dataset) as saver, gate(monkeypatch, "model") as writing:
        saver.begin(state)
        assert writing.reached.wait(PATIENCE)
        for _ in range(20):  # of a hundred chains most are visited, many twice
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
    assert not any(thread.name.startswith("checkpoint") for thread in threading.enumerate())


def test_a_buffer_keeps_nothing_once_its_state_is_written_or_lost(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin()
    state = setup.initial_state()
    assert state.chains is not None
    state.save(run, setup.dataset)
    assert state.chains.buffer._snapshots == []
    state.step = 1
    fail_at(monkeypatch, 1, part="model")
    with pytest.raises(OSError, match="No space left"):
        state.save(run, setup.dataset)
    assert state.chains.buffer._snapshots == []


def test_a_full_disk_ends_the_training_at_the_next_save_and_loses_nothing(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = (JOINT, "log.checkpoint_every=2", "log.keep=2")
    setup, run = begin(*overrides)
    with monkeypatch.context() as disk:
        fail_at(disk, 6)
        with pytest.raises(OSError, match="No space left on device") as error:
            train(setup, run, quiet=True)
    assert error.value.filename == str(run.path / "checkpoints" / ".step-00000006")
    assert run.metrics()[-1]["step"] == 8
    assert run.provenance["status"] == "failed"
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    trained(setup, run, resume=True)
    assert contents(run.checkpoint()) == contents(trained(*begin(*overrides)).checkpoint())


@pytest.mark.parametrize(("every", "step"), [(9, 9), (0, 10)])
def test_a_full_disk_at_the_end_is_no_success(begin: Begin, monkeypatch: pytest.MonkeyPatch, every: int, step: int) -> None:
    setup, run = begin(GEN, f"log.checkpoint_every={every}")
    fail_at(monkeypatch, step)
    with pytest.raises(OSError, match="No space left"):
        train(setup, run, quiet=True)
    assert run.provenance["status"] == "failed"
    assert run.checkpoints == []


def test_a_full_disk_hides_no_other_error(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin()
    fail_at(monkeypatch, 0, part="model")
    with pytest.raises(KeyError), Saver(run, setup.dataset) as saver:
        saver.begin(setup.initial_state())
        raise KeyError


@pytest.mark.parametrize("part", ["model", "buffer"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A copy of the run's files at that moment is what a kill leaves."""
    setup, run = begin("stages.0.epochs=2", "log.checkpoint_every=2", "log.keep=1")
    write = checkpoint_module.write_tensors
    left = Run(tmp_path / "left")

    def copying(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        if path.parent.name == ".step-00000006" and path.stem == part:
            path.write_bytes(b"half of it")
            shutil.copytree(run.path, left.path)
        return write(path, tensors, metadata)

    with monkeypatch.context() as writing:
        writing.setattr(checkpoint_module, "write_tensors", copying)
        train(setup, run, quiet=True)
    assert [c.step for c in left.checkpoints] == [4]
    assert (left.path / "checkpoints" / ".step-00000006" / f"{part}.safetensors").is_file()
    trained(setup, left, resume=True)
    assert contents(left.checkpoint()) == contents(run.checkpoint())
    assert [path.name for path in (left.path / "checkpoints").iterdir()] == ["step-00000010"]


def test_a_stop_whose_state_cannot_be_saved_does_not_say_that_it_is(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin("stages.0.epochs=1000")
    write = checkpoint_module.write_tensors

    def full(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        write(path, tensors, metadata)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_tensors", full)
    with stopped(signal.SIGTERM, lambda: len(run.metrics()) > 1), pytest.raises(OSError, match="No space left"):
        train(setup, run, quiet=True)


def test_a_rollback_and_a_stop_wait_for_the_checkpoint_that_is_being_written(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint_module.write_tensors

    def slow(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        time.sleep(0.05)
        return write(path, tensors, metadata)

    monkeypatch.setattr(checkpoint_module, "write_tensors", slow)
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_rollbacks=1", "log.checkpoint_every=5")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    assert [line["to_step"] for line in run.metrics() if line.get("event") == "rollback"] == [5]
    setup, run = begin("stages.0.epochs=1000")
    with stopped(signal.SIGTERM, lambda: len(run.metrics()) > 1), pytest.raises(StoppedError):
        train(setup, run, quiet=True)
    assert run.checkpoint().step == run.metrics()[-1]["step"]
