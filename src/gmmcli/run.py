"""A run: the directory of one training (docs/run-directory.md)."""

import fcntl
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from gmmcli.checkpoint import HINT, Checkpoint
from gmmcli.core.buffer import ReplayBuffer, joined
from gmmcli.core.classifier import Classifier
from gmmcli.core.protocols import Starts
from gmmcli.core.starts import Uniform
from gmmcli.data.dataset import Dataset
from gmmcli.data.fingerprint import Fingerprint
from gmmcli.data.sources import Source, located
from gmmcli.distributed import by_main, world
from gmmcli.errors import CheckpointError, DataError, RecipeError, RunError, StorageError
from gmmcli.model_card import ModelCard
from gmmcli.progress import say
from gmmcli.provenance import provenance
from gmmcli.recipe import Recipe
from gmmcli.results import Results
from gmmcli.run_folder import RunFolder, default_runs_dir, find_run, run_paths
from gmmcli.storage import SCHEMA, append_json, open_lock, read_json_lines, write_text

TIME = "%Y-%m-%dT%H%M%SZ"  # before the name of a run
LASTING = ("diverged", "rollback", "unstable")  # events that a resume keeps: it logs each once
STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d{6}Z)-")
T = TypeVar("T")
__all__ = ["Run", "default_runs_dir", "list_runs", "open_run"]


class Run(RunFolder, Results):
    """A run directory: its recipe, checkpoints, metrics and results. Of several processes the main one alone writes to it.

    The newest checkpoint is looked up at each call, since a training may be writing it; each file of a checkpoint is verified once.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._models: dict[tuple[str, str], Classifier] = {}
        self._cards: dict[str, ModelCard] = {}
        self._told: set[str] = set()

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it was resolved; RunError where it cannot be read."""
        try:
            return Recipe.load(self.path / "recipe.toml", of_run=True)
        except RecipeError as error:
            raise RunError(f"{self.path} is not a readable run: {error.message}", error.hint) from error

    @classmethod
    def create(cls, recipe: Recipe, runs_dir: Path, argv: Sequence[str]) -> "Run":
        """Create a run directory, named by time and recipe; an existing one is never overwritten."""
        stem = f"{_next_time(runs_dir)}-{recipe.name}"
        for path in (runs_dir / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 1000)):
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        write_text(path / "recipe.toml", recipe.dumps())
        run = cls(path)
        run.describe(schema=SCHEMA, **provenance(path, argv))
        return run

    @by_main
    def describe(self, **facts: Any) -> None:
        """Add facts to provenance.json; StorageError where the run is gone."""
        self.check_there()
        write_text(self.path / "provenance.json", json.dumps(self.provenance | facts, indent=1))

    def check_there(self) -> None:
        """Raise StorageError where the run was deleted or moved while it is trained: it must not be made anew without its recipe."""
        if not (self.path / "recipe.toml").exists():
            raise StorageError(f"{self.path} was removed or moved while it was trained", "put it back and resume it, or train anew")

    @property
    def source(self) -> Source:
        """The source of the data that the run was trained on, whatever the current directory."""
        return located(self.recipe.data.source, self.path / self.provenance.get("trained_from", Path.cwd()))

    def dataset(self) -> Dataset:
        """The data that the run was trained on, whatever the current directory; DataError where it is missing or broken.

        Where images have come or gone since, those that the run knows keep their split, and stderr says so, once.
        """
        dataset = self.source.load()
        if self.fingerprint is None:
            return dataset
        dataset, change = self.fingerprint.settled(dataset)
        if change:
            self._tell(f"gmmc: warning: {dataset.name} has changed since run {self.id} was trained: {change}")
        return dataset

    @by_main
    def _tell(self, line: str) -> None:
        """Say something once."""
        if line not in self._told:
            self._told.add(line)
            say(line)

    @cached_property
    def fingerprint(self) -> Fingerprint | None:
        """What the run's images were when its training started; None for a run that has not noted it."""
        path = self.path / "data.safetensors"
        return Fingerprint.read(path) if path.exists() else None

    def check_fingerprint(self, dataset: Dataset) -> None:
        """Raise DataError where the images for training or validation are not what they were; others may have come to test."""
        kept = self.fingerprint
        if kept and not (
            dataset.class_names == kept.class_names and all(kept.matches(s, dataset.split(s)) for s in ("train", "validation"))
        ):
            raise DataError(
                f"{dataset.name}: the images to train on are not those that run {self.id} was started with",
                "put them back as they were, or start a new training with gmmc train",
            )

    @by_main
    def keep_fingerprint(self, dataset: Dataset) -> None:
        """Note what the run's images are."""
        Fingerprint.of(dataset).write(self.path / "data.safetensors")
        self.__dict__.pop("fingerprint", None)  # read anew

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The complete checkpoints, oldest first."""
        return Checkpoint.all(self.path / "checkpoints")

    def checkpoint(self, best: bool = False) -> Checkpoint:
        """The newest checkpoint, or the best in validation by ``log.best``; RunError where there is none yet.

        Where the best is lost it is the newest, and stderr says so, once.
        """
        found = self.checkpoints
        if not found:
            raise RunError(f"{self.path} has no complete checkpoint yet", "resume it: gmmc train --resume")
        if best:
            step = found[-1].progress.get("best_step")
            there = [checkpoint for checkpoint in found if checkpoint.step == step]
            if step and not there:
                self._tell(f"gmmc: warning: the best checkpoint of run {self.id}, step {step}, is lost: this is the newest")
            return (there or found)[-1]
        return found[-1]

    def read(self, read: Callable[[Checkpoint], T], best: bool = False) -> T:
        """Read something of the newest checkpoint, or the best; of a newer one where a training removes it while it is read.

        Raises:
            RunError, CheckpointError: there is none, or it is damaged.
        """
        while True:
            checkpoint = self.checkpoint(best)
            try:
                return read(checkpoint)
            except (CheckpointError, FileNotFoundError):
                if checkpoint in self.checkpoints:
                    raise

    def card(self, best: bool = False) -> ModelCard:
        """The card of a checkpoint's model."""
        return self.read(self.card_of, best)

    def card_of(self, checkpoint: Checkpoint) -> ModelCard:
        """The card of a checkpoint, parsed once."""
        digest = checkpoint.digest("model")
        if digest not in self._cards:
            self._cards[digest] = ModelCard.parse(checkpoint.metadata("model"), str(checkpoint.path))
        return self._cards[digest]

    def model(self, best: bool = False, device: str | torch.device = "cpu") -> Classifier:
        """The trained classifier, in evaluation mode, placed as the recipe's ``[compute]`` says.

        It is loaded once: later calls for the same checkpoint and device return the same object. Copy it before changing it.
        """
        return self.read(lambda checkpoint: self.model_of(checkpoint, device), best)

    def model_of(self, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> Classifier:
        """The classifier of a checkpoint, as ``model`` returns it."""
        key = checkpoint.digest("model"), str(device)
        if key not in self._models:
            card = self.card_of(checkpoint)
            model = card.build()
            try:
                model.load_state_dict(checkpoint.tensors("model"))
            except RuntimeError as error:
                raise CheckpointError(
                    f"{checkpoint.path}: model.safetensors is of another model than its header says ({error})", HINT
                ) from error
            self._models[key] = card.recipe.compute.place(model, torch.device(device)).eval()
        return self._models[key]

    def buffer(self) -> ReplayBuffer:
        """The newest checkpoint's replay buffer, of all processes; RunError for a run trained without chains.

        It is memory-mapped, unless several processes have each saved their slots.
        """
        return self.read(self._buffer_of)

    def _buffer_of(self, checkpoint: Checkpoint) -> ReplayBuffer:
        if not checkpoint.has("buffer"):
            raise RunError(f"{self.id} was trained without chains and has no replay buffer", "use --from noise")
        return ReplayBuffer(joined([checkpoint.tensor(name, "images") for name in checkpoint.shards("buffer")]))

    def starts(self, device: torch.device | str = "cpu") -> Starts:
        """Where the run's chains start, on a device; uniform noise for a run trained without chains."""
        tensors, card = self.read(lambda one: (one.tensors("starts") if one.has("starts") else {}, self.card_of(one)))
        start = card.recipe.chains.start if card.recipe.needs_chains else Uniform()
        return start.restored({name: tensor.to(device) for name, tensor in tensors.items()}, card.image_shape)

    @by_main
    def log(self, line: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        append_json(self.path / "metrics.jsonl", line)

    def metrics(self) -> list[dict[str, Any]]:
        """Every object of metrics.jsonl; a line cut short by a crash is left out."""
        return read_json_lines(self.path / "metrics.jsonl")

    @by_main
    def forget_after(self, step: int) -> None:
        """Drop the metrics after a step, which training will repeat, but for the lasting events."""
        kept = [line for line in self.metrics() if line.get("step", step) <= step or line.get("event") in LASTING]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for training: two trainings must not write one run. The lock of a killed process is released."""
        if not world().is_main:
            yield
            return
        with open_lock(self.path / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"{self.id} is being trained by another process", "wait for that process, or stop it") from error
            yield


def _next_time(runs_dir: Path) -> str:
    """The time in a new run's name: the clock's, or where that was set back a second after the newest run's, so that names sort by age."""
    now = f"{datetime.now(UTC):{TIME}}"
    newest = max((found[1] for path in run_paths(runs_dir) if (found := STAMPED.match(path.name))), default="")
    if newest > now:
        with suppress(ValueError, OverflowError):  # of a name that is no time
            return f"{datetime.strptime(newest, TIME).replace(tzinfo=UTC) + timedelta(seconds=1):{TIME}}"
    return now


def list_runs(runs_dir: Path) -> list[Run]:
    """The runs of a directory, oldest first."""
    return [Run(path) for path in run_paths(runs_dir)]


def open_run(name: str | Path | None = None, runs_dir: Path | None = None, *, unfinished: bool = False) -> Run:
    """Open a run by path, id, unique prefix or its recipe's name; else $GMMC_RUN; else the newest with a complete checkpoint.

    Args:
        name: the run, or None for the default. A recipe's name means its newest run with a complete checkpoint.
        runs_dir: where runs are; $GMMC_RUNS_DIR or ./runs by default.
        unfinished: for a recipe's name or None, take the newest run even if it has no checkpoint: the one to resume.

    Raises:
        RunError: no run matches, or several do.
    """
    return Run(find_run(name, runs_dir, lambda path: unfinished or bool(Run(path).checkpoints)))
