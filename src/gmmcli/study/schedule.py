"""What of a study is left to do, and doing it: child processes, a journal, one line of progress."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gmmcli.errors import DataError, DivergedError, MissingPartError, RunError, StoppedError
from gmmcli.progress import Voice
from gmmcli.recipe import Recipe
from gmmcli.run import Run, list_runs
from gmmcli.signals import StopSignals
from gmmcli.study.spec import Training

FOUND = {0, DivergedError.exit_code}
"""Exit codes of a task that is done: divergence, of a training or of the chains that an evaluation runs, is a finding."""
WITHOUT = {DataError.exit_code, MissingPartError.exit_code}
"""Exit codes of an evaluation that lacks what it needs here: the others go on, and the next call tries again."""


class Done(NamedTuple):
    """A task that a child process has finished, well or not."""

    model: str
    seed: int
    words: tuple[str, ...]
    exit_code: int
    said: str
    """The last line of what it said, where it did not end well."""

    @property
    def failed(self) -> bool:
        """Whether something is wrong: what diverged is a finding, and an evaluation without its data waits for them."""
        return self.exit_code not in (FOUND if self.words[0] == "train" else FOUND | WITHOUT)


@dataclass
class Schedule:
    """A study's trainings in its directory: runs as runs are, ``journal.jsonl`` of what was done, ``logs/`` of what was said."""

    directory: Path
    trainings: Sequence[Training]
    jobs: int = 1
    _children: set["subprocess.Popen[bytes]"] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _skipped: int = 0
    _at_work: dict[str, str] = field(default_factory=dict)
    _runs: dict[Path, Run] = field(default_factory=dict)

    def run_of(self, training: Training) -> Run | None:
        """The run of a training's very recipe, the newest where there are several; None before it has begun."""
        with self._lock:
            self._runs |= {run.path: run for run in list_runs(self.directory) if run.path not in self._runs}
            return next((run for _, run in sorted(self._runs.items(), reverse=True) if _recipe(run) == training.recipe), None)

    def left(self, training: Training) -> list[tuple[str, ...]]:
        """The commands that a training still needs: ``("train",)``, then evaluations by their words."""
        run = self.run_of(training)
        if run is not None and run.provenance.get("status") == "diverged":
            return []
        trained = run is not None and run.provenance.get("status") == "finished" and run.result("eval accuracy") is not None
        done = {tuple(line["words"]) for line in self._journal() if run is not None and line["run"] == run.id and line["exit"] in FOUND}
        return [*([] if trained else [("train",)]), *(words for words in training.evaluations if words not in done)]

    @property
    def n_tasks(self) -> int:
        """Trainings and evaluations in all."""
        return sum(1 + len(training.evaluations) for training in self.trainings)

    def conduct(self, title: str, quiet: bool = False) -> list[Done]:
        """Do all that is left, ``jobs`` trainings at a time; return what was done.

        Raises:
            StoppedError: a signal came; the trainings under way have saved, and the same call goes on.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        waiting = [(training, left) for training in self.trainings if (left := self.left(training))]
        done: list[Done] = []
        n_left = sum(len(left) for _, left in waiting)
        with StopSignals() as stop, Voice(title, self.n_tasks, quiet, unit="tasks") as voice, ThreadPoolExecutor(self.jobs) as pool:
            pending = {pool.submit(self._one, training, left, done) for training, left in waiting}
            while pending and not stop.received:
                finished, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                self._raise(finished)
                voice.at(self.n_tasks - n_left + len(done) + self._skipped, "; ".join(list(self._at_work.values())) or "all done")
            if stop.received:
                self._stop(pending)
        if stop.received:
            raise StoppedError(f"{stop.received}: trainings under way are saved", "the same command goes on from here")
        for training in self.trainings:
            self._describe(training)
        return done

    def _one(self, training: Training, left: Sequence[tuple[str, ...]], done: list[Done]) -> None:
        """Train, then evaluate, in a thread of its own; a training that does not end well is not evaluated."""
        name = f"{training.model} seed {training.recipe.seed}"
        for words in left:
            if self._stopping.is_set():
                return
            self._at_work[name] = f"{name}: {' '.join(words[:2])}"
            outcome = self._run(training, words)
            if self._stopping.is_set():
                return
            done.append(outcome)
            if words == ("train",) and outcome.exit_code:
                self._skipped += len(left) - 1
                break
        self._at_work.pop(name, None)

    def _run(self, training: Training, words: tuple[str, ...]) -> Done:
        """Run one command to its end, and write it down."""
        self._describe(training)
        run = self.run_of(training)
        where = ["--runs-dir", str(self.directory), "--quiet", "--json"]
        if words != ("train",):
            call = [*words, "--run", str(run.path if run else ""), *where]
        elif run is not None:
            call = ["train", "--resume", "--run", str(run.path), *where]
        else:
            call = ["train", training.source, *(word for override in training.overrides for word in ("--set", override)), *where]
        log = self.directory / "logs" / f"{training.position:02}-{training.recipe.name}-seed{training.recipe.seed}.log"
        log.parent.mkdir(exist_ok=True)
        started = time.monotonic()
        exit_code = self._child(call, log)
        self._describe(training)
        run = self.run_of(training)
        line = {"run": run.id if run else None, "words": words, "exit": exit_code, "seconds": round(time.monotonic() - started, 1)}
        self._write(line)
        return Done(training.model, training.recipe.seed, words, exit_code, _last_words(log) if exit_code else "")

    def _child(self, call: Sequence[str], log: Path) -> int:
        """Run ``gmmc`` in a session of its own, so that Ctrl-C reaches it through us alone, and with its share of the cores."""
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = {"OMP_NUM_THREADS": threads} | os.environ
        with log.open("ab") as file:
            file.write(f"$ gmmc {' '.join(call)}\n".encode())
            file.flush()
            with self._lock:
                if self._stopping.is_set():
                    return StoppedError.exit_code
                child = subprocess.Popen(
                    [sys.executable, "-m", "gmmcli", *call],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
                self._children.add(child)
            exit_code = child.wait()
            with self._lock:
                self._children.discard(child)
        return exit_code

    def _stop(self, pending: "set[Future[None]]") -> None:
        with self._lock:
            self._stopping.set()
            for child in self._children:
                child.terminate()
        for future in pending:
            future.cancel()

    def _raise(self, finished: "set[Future[None]]") -> None:
        """What went wrong in a thread goes wrong here, after the others were told to stop."""
        for future in finished:
            if error := future.exception():
                self._stop(set())
                raise error

    def _describe(self, training: Training) -> None:
        """Let the run know which model of which study it is: the report's headings."""
        if run := self.run_of(training):
            about = {"study_model": training.model, "study_position": training.position}
            if about != {key: run.provenance.get(key) for key in about}:
                run.describe(**about)

    def _journal(self) -> list[dict[str, Any]]:
        path = self.directory / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _write(self, line: dict[str, Any]) -> None:
        path = self.directory / "journal.jsonl"
        with self._lock, path.open("a") as file:
            cut_short = file.tell() and not path.read_text().endswith("\n")
            file.write("\n" * bool(cut_short) + json.dumps(line) + "\n")


def _recipe(run: Run) -> Recipe | None:
    """A run's recipe, or None where it cannot be read: a run of nobody here."""
    try:
        return run.recipe
    except RunError:
        return None


def _last_words(log: Path) -> str:
    """The sentence with which the last command of a log ended."""
    said = log.read_text(errors="replace").rpartition("\n$ gmmc ")[2]
    lines = [line for line in said.splitlines() if line.startswith("gmmc: ")]
    last = next((line for line in reversed(lines) if "error:" in line), lines[-1] if lines else f"see {log}")
    return last.removeprefix("gmmc: ").removeprefix("error: ")
