"""Processes that are killed or told to stop go on as if nothing had happened.

Each is a ``python -m gmmcli`` of its own (forked.py).
"""

import errno
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import pytest
from trainings import DEAD, GEN, Begin, Small, contents, trained

from gmmcli.errors import DivergedError
from gmmcli.run import Run, open_run
from gmmcli.train.guard import GuardedStep
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import StepReport, training_step

PATIENCE = 120.0

Gmmc = Callable[..., BaseProcess]


@pytest.fixture
def gmmc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gmmc:
    """Start ``python -m gmmcli ARGUMENTS --quiet`` with its runs in ``tmp_path / "runs"``."""
    monkeypatch.setenv("GMMC_RUNS_DIR", "unused")

    def start(*arguments: str) -> BaseProcess:
        monkeypatch.setattr(sys, "argv", ["gmmc", *arguments, "--quiet", "--runs-dir", str(tmp_path / "runs")])
        return forked.gmmc()

    return start


def write(recipe_of: Small, path: Path, *overrides: str) -> str:
    path.write_text(recipe_of(*overrides).dumps())
    return str(path)


def logged(runs_dir: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in runs_dir.glob("*/metrics.jsonl"))


def wait_for(process: BaseProcess, runs_dir: Path, lines: int) -> None:
    """Until this process has brought metrics.jsonl to so many lines."""
    deadline = time.monotonic() + PATIENCE
    while logged(runs_dir) < lines:
        assert process.is_alive(), f"the training ended by itself, exit code {process.exitcode}"
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.002)


def exit_code(process: BaseProcess) -> int | None:
    process.join(PATIENCE)
    return process.exitcode


def assert_as_undisturbed(small: Small, tmp_path: Path, *overrides: str) -> None:
    run = open_run(None, tmp_path / "runs")
    straight = Run.create(small(*overrides), tmp_path / "straight", [])
    setup = Setup.prepare(straight.recipe)
    train(setup, straight, quiet=True)
    assert run.provenance["status"] == "finished"
    assert [line["step"] for line in run.metrics()] == list(range(1, setup.n_steps + 1))
    assert contents(run.checkpoint()) == contents(straight.checkpoint())


def train_through_kills(gmmc: Gmmc, small: Small, tmp_path: Path, epochs: int, kills: int) -> None:
    dice, runs_dir = random.Random(kills), tmp_path / "runs"
    process = gmmc("train", write(small, tmp_path / "r.toml", f"stages.0.epochs={epochs}", "log.checkpoint_every=3", "log.keep=2"))
    for _ in range(kills):
        wait_for(process, runs_dir, logged(runs_dir) + dice.randint(1, 8))
        time.sleep(dice.uniform(0, 0.05))  # anywhere in a step, a log line or a checkpoint
        process.kill()
        assert exit_code(process) == -signal.SIGKILL
        process = gmmc("train", "--resume")
    assert exit_code(process) == 0
    assert_as_undisturbed(small, tmp_path, f"stages.0.epochs={epochs}")


def test_two_kills_and_the_weights_are_those_of_an_undisturbed_run(gmmc: Gmmc, small: Small, tmp_path: Path) -> None:
    train_through_kills(gmmc, small, tmp_path, epochs=8, kills=2)


@pytest.mark.slow
def test_ten_kills_and_the_weights_are_those_of_an_undisturbed_run(gmmc: Gmmc, small: Small, tmp_path: Path) -> None:
    train_through_kills(gmmc, small, tmp_path, epochs=40, kills=10)


def test_ctrl_c_sigterm_and_a_closed_terminal_save_and_resume_to_the_same_weights(gmmc: Gmmc, small: Small, tmp_path: Path) -> None:
    runs_dir, arguments = tmp_path / "runs", ["train", write(small, tmp_path / "r.toml", "stages.0.epochs=8")]
    heard = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)  # the tests may run under nohup
    for number in (signal.SIGINT, signal.SIGTERM, *heard):
        process = gmmc(*arguments)
        wait_for(process, runs_dir, logged(runs_dir) + 3)
        os.kill(process.pid or 0, number)
        assert exit_code(process) == 128 + number
        run = open_run(None, runs_dir)
        assert run.provenance["status"] == "interrupted"
        assert [c.step for c in run.checkpoints][-1] == run.metrics()[-1]["step"] == logged(runs_dir)  # nothing is lost
        arguments = ["train", "--resume"]
    assert exit_code(gmmc(*arguments)) == 0
    assert_as_undisturbed(small, tmp_path, "stages.0.epochs=8")


def test_a_terminal_that_is_closed_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch, small: Small, tmp_path: Path) -> None:
    runs_dir, (master, slave) = tmp_path / "runs", os.openpty()
    os.set_blocking(master, False)
    recipe = write(small, tmp_path / "r.toml", "stages.0.epochs=400")
    monkeypatch.setattr(sys, "argv", ["gmmc", "train", recipe, "--runs-dir", str(runs_dir)])
    process = forked.gmmc_on(os.ttyname(slave))
    while logged(runs_dir) < 3 and process.is_alive():
        with suppress(BlockingIOError):
            os.read(master, 1 << 16)  # a bar that nobody reads would halt
        time.sleep(0.01)
    os.close(slave)
    os.close(master)
    for _ in range(2):  # from the shell; the kernel sends its own, if it is one that does
        os.kill(process.pid or 0, signal.SIGHUP)
    assert exit_code(process) == 128 + signal.SIGHUP
    run = open_run(None, runs_dir)
    assert run.provenance["status"] == "interrupted"
    assert run.checkpoint().step == run.metrics()[-1]["step"]


def test_a_second_ctrl_c_ends_at_once_and_nothing_that_was_saved_is_lost(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("stages.0.epochs=2", "log.checkpoint_every=2")
    setup, run = begin(*overrides)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def impatient(setup: Setup, state: TrainState, update: GuardedStep) -> StepReport:
        for _ in range(2 if state.step == 5 else 0):
            signal.raise_signal(signal.SIGINT)
        return training_step(setup, state, update)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("gmmcli.train.loop.training_step", impatient)
        train(setup, run, quiet=True)
    signal.signal(signal.SIGINT, before)
    assert (run.status, [checkpoint.step for checkpoint in run.checkpoints]) == ("interrupted", [2, 4])
    train(setup, run, resume=True, quiet=True)
    assert contents(run.checkpoint()) == contents(trained(*begin(*overrides)).checkpoint())


class Unread:
    """A stderr whose reader has gone, as in `gmmc train 2>&1 | head -1`."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    flush = write

    def isatty(self) -> bool:
        return False


def test_a_stderr_that_nobody_reads_costs_no_step_and_no_warning(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin(GEN, DEAD)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", Unread())
        train(setup, run)
    assert (run.status, run.checkpoint().step) == ("finished", 10)
    assert [line["event"] for line in run.metrics() if "event" in line] == ["chains"]


def test_sigusr1_saves_the_state_and_training_goes_on_to_the_same_weights(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin("stages.0.epochs=2")

    def told(setup: Setup, state: TrainState, update: GuardedStep) -> StepReport:
        if state.step in (3, 6):
            signal.raise_signal(signal.SIGUSR1)
        return training_step(setup, state, update)

    with monkeypatch.context() as patched:
        patched.setattr("gmmcli.train.loop.training_step", told)
        train(setup, run, quiet=True)
    assert (run.status, [checkpoint.step for checkpoint in run.checkpoints]) == ("finished", [4, 7, 10])
    undisturbed = trained(*begin("stages.0.epochs=2", "log.checkpoint_every=1"))
    for checkpoint in run.checkpoints:
        same = next(one for one in undisturbed.checkpoints if one.step == checkpoint.step)
        assert contents(checkpoint) == contents(same)


def test_a_halt_and_a_continue_change_nothing(gmmc: Gmmc, small: Small, tmp_path: Path) -> None:
    process = gmmc("train", write(small, tmp_path / "r.toml", "stages.0.epochs=4"))
    wait_for(process, tmp_path / "runs", 3)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(process.pid or 0, number)
        time.sleep(0.05)
    assert exit_code(process) == 0
    assert_as_undisturbed(small, tmp_path, "stages.0.epochs=4")


def test_divergence_exits_with_its_own_code(gmmc: Gmmc, small: Small, tmp_path: Path) -> None:
    path = write(small, tmp_path / "r.toml", "optim.learning_rate=30.0", "stages.0.objective.margin=0.0")
    assert exit_code(gmmc("train", path)) == DivergedError.exit_code == 5
    assert open_run(None, tmp_path / "runs", unfinished=True).provenance["status"] == "diverged"
