"""Which tasks of a study remain, and running them: in parallel, with a journal and a progress bar."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gmmcli.errors import DataError, DivergedError, MissingPartError, RunError, StoppedError
from gmmcli.progress import ProgressBar
from gmmcli.recipe import Recipe
from gmmcli.run import Run, list_runs
from gmmcli.signals import StopSignals
from gmmcli.storage import append_json, read_json_lines
from gmmcli.study.processes import Processes, last_message
from gmmcli.study.spec import Training

FOUND = {0, DivergedError.exit_code}
"""Exit codes of a task that is done: divergence, of a training or of an evaluation's chains, is a result."""
WITHOUT = {DataError.exit_code, MissingPartError.exit_code}
"""Exit codes of an evaluation whose data or weights are missing: the others run, and the next call tries it again."""


class Outcome(NamedTuple):
    """A task that has ended, successfully or not."""

    model: str
    seed: int
    words: tuple[str, ...]
    exit_code: int
    message: str
    """Its error, or its last message, where it did not succeed."""

    @property
    def failed(self) -> bool:
        """Whether it is an error: divergence is a result, and an evaluation without its data is tried again later."""
        return self.exit_code not in (FOUND if self.words[0] == "train" else FOUND | WITHOUT)


@dataclass
class Schedule:
    """A study's trainings in its directory: run directories, ``journal.jsonl`` with a line for each task, ``logs/`` with all output."""

    directory: Path
    trainings: Sequence[Training]
    jobs: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _skipped: int = 0
    _running: dict[str, str] = field(default_factory=dict)
    _runs: dict[Path, Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._processes = Processes(self.jobs)

    @property
    def journal(self) -> Path:
        """One line for each command that has ended."""
        return self.directory / "journal.jsonl"

    def run_of(self, training: Training) -> Run | None:
        """The run with this recipe, the newest where there are several; None before the training starts."""
        with self._lock:
            self._runs |= {run.path: run for run in list_runs(self.directory) if run.path not in self._runs}
            return next((run for _, run in sorted(self._runs.items(), reverse=True) if _is_of(run, training.recipe)), None)

    def remaining(self, training: Training) -> list[tuple[str, ...]]:
        """The commands that remain for a training: ``("train",)``, then its evaluations, as words."""
        run = self.run_of(training)
        if run is not None and run.provenance.get("status") == "diverged":
            return []
        trained = run is not None and run.provenance.get("status") == "finished" and run.result("eval accuracy") is not None
        done = {
            tuple(line["words"])
            for line in read_json_lines(self.journal)
            if run is not None and line["run"] == run.id and line["exit"] in FOUND
        }
        return [*([] if trained else [("train",)]), *(words for words in training.evaluations if words not in done)]

    @property
    def n_tasks(self) -> int:
        """Total number of trainings and evaluations."""
        return sum(1 + len(training.evaluations) for training in self.trainings)

    def run(self, title: str, quiet: bool = False) -> list[Outcome]:
        """Run all remaining tasks, ``jobs`` trainings at a time; return their outcomes.

        Raises:
            StoppedError: a signal arrived; running trainings have saved their state, and the same call resumes them.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        waiting = [(training, left) for training in self.trainings if (left := self.remaining(training))]
        done: list[Outcome] = []
        n_left = sum(len(left) for _, left in waiting)
        with StopSignals() as stop, ProgressBar(title, self.n_tasks, quiet, unit="tasks") as bar, ThreadPoolExecutor(self.jobs) as pool:
            pending = {pool.submit(self._one, training, left, done) for training, left in waiting}
            while pending and not stop.received:
                finished, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                self._raise(finished)
                bar.update(self.n_tasks - n_left + len(done) + self._skipped, "; ".join(list(self._running.values())) or "all done")
            if stop.received:
                self._stop(pending)
        if stop.received:
            raise StoppedError(f"{stop.received.name}: running trainings are saved", "run the same command again to resume", stop.received)
        for training in self.trainings:
            self._describe(training)
        return done

    def _one(self, training: Training, left: Sequence[tuple[str, ...]], done: list[Outcome]) -> None:
        """Train, then evaluate, in a thread of its own; a training that fails or diverges is not evaluated."""
        name = f"{training.model} seed {training.recipe.seed}"
        for words in left:
            if self._processes.stopping.is_set():
                return
            self._running[name] = f"{name}: {' '.join(words[:2])}"
            outcome = self._run(training, words)
            if self._processes.stopping.is_set():
                return
            done.append(outcome)
            if words == ("train",) and outcome.exit_code:
                self._skipped += len(left) - 1
                break
        self._running.pop(name, None)

    def _run(self, training: Training, words: tuple[str, ...]) -> Outcome:
        """Run one command to its end, and record it in the journal."""
        self._describe(training)
        run = self.run_of(training)
        where = ["--runs-dir", str(self.directory), "--quiet", "--json"]
        if words != ("train",):
            assert run is not None, f"{training.model} was trained, and left no run"
            call = [*words, "--run", str(run.path), *where]
        elif run is not None:
            call = ["train", "--resume", "--run", str(run.path), *where]
        else:
            call = ["train", training.source, *(word for override in training.overrides for word in ("--set", override)), *where]
        log = self.directory / "logs" / f"{training.position:02}-{training.recipe.name}-seed{training.recipe.seed}.log"
        log.parent.mkdir(exist_ok=True)
        started = time.monotonic()
        exit_code = self._gmmc(call, log)
        self._describe(training)
        run = self.run_of(training)
        line = {"run": run.id if run else None, "words": words, "exit": exit_code, "seconds": round(time.monotonic() - started, 1)}
        with self._lock:
            append_json(self.journal, line)
        return Outcome(training.model, training.recipe.seed, words, exit_code, last_message(log) if exit_code else "")

    def _gmmc(self, call: Sequence[str], log: Path) -> int:
        """Run gmmc with these arguments; return its exit code."""
        return self._processes.run(call, log)

    def _stop(self, pending: "set[Future[None]]") -> None:
        self._processes.stop()
        for future in pending:
            future.cancel()

    def _raise(self, finished: "set[Future[None]]") -> None:
        """Raise an exception of a thread here, after the processes were stopped."""
        for future in finished:
            if error := future.exception():
                self._processes.stop()
                raise error

    def _describe(self, training: Training) -> None:
        """Record in the run which model of the study it is; the report takes its headings from there."""
        if run := self.run_of(training):
            about = {"study_model": training.model, "study_position": training.position}
            if about != {key: run.provenance.get(key) for key in about}:
                run.describe(**about)


def _is_of(run: Run, recipe: Recipe) -> bool:
    """Whether a run was trained by this recipe, of which it keeps what ``auto`` became; a run whose recipe cannot be read was not."""
    try:
        kept = run.recipe
    except RunError:
        return False
    if recipe.compute.precision == "auto":
        kept = replace(kept, compute=replace(kept.compute, precision="auto"))
    return kept == recipe
