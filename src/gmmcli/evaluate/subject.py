"""What is evaluated: a checkpoint of a run, and the images it is evaluated on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gmmcli.core.classifier import Classifier
from gmmcli.data.dataset import Dataset, Split, SplitName
from gmmcli.data.sources import parse_source
from gmmcli.errors import RecipeError, RunError
from gmmcli.metrics.calibration import fit_temperature
from gmmcli.metrics.outputs import Outputs, outputs
from gmmcli.model_card import ModelCard
from gmmcli.rng import stream
from gmmcli.run import Run, open_run

SEED = 1
TRAINING_IMAGES = 50_000
"""Maximum number of training images on which scores are fitted: all of CIFAR's."""
NOTHING_DRAWN = ("eval accuracy", "eval calibrate")
"""Commands that give the same figures for every seed, as long as all images are taken."""


@dataclass(frozen=True)
class Subject:
    """A model and its questions."""

    run: Run
    step: int
    card: ModelCard
    model: Classifier
    dataset: Dataset
    split: SplitName
    n: int | None = None
    """Maximum number of images, drawn at random by ``seed``; all by default."""
    seed: int = 1
    foreign: bool = False
    """The dataset is another than the run's own."""
    best: bool = False
    """The checkpoint of the best validation instead of the last."""
    asked: tuple[str, ...] = ()
    """What was asked beyond the defaults and is part of the names of results, as words: ``("samples 200",)``."""
    _passes: dict[str, Outputs] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        run: str | Path | None = None,
        runs_dir: Path | None = None,
        *,
        best: bool = False,
        device: torch.device | str = "cpu",
        data: str | None = None,
        split: SplitName = "test",
        n: int | None = None,
        seed: int = 1,
    ) -> "Subject":
        """Open a run as ``open_run`` does, and its own data or, by ``data = NAME|KIND:PATH``, other images of the same kind.

        Raises:
            RecipeError: other images whose size or number of classes is not the run's.
            RunError, CheckpointError, DataError: the run or the data is unavailable.
        """
        chosen = open_run(run, runs_dir)
        card, checkpoint = chosen.card(best), chosen.checkpoint(best)
        dataset = parse_source(data).load() if data else chosen.dataset()
        if dataset.shape != card.image_shape:
            raise RecipeError(
                f"{dataset.name} has images of {_size(dataset.shape)}, run {chosen.id} takes {_size(card.image_shape)}", FITTING
            )
        if dataset.n_classes != len(card.class_names):
            raise RecipeError(f"{dataset.name} has {dataset.n_classes} classes, run {chosen.id} knows {len(card.class_names)}", FITTING)
        return cls(chosen, checkpoint.step, card, chosen.model(best, device), dataset, split, n, seed, bool(data), best)

    @cached_property
    def images(self) -> Split:
        """The images asked about, with their labels."""
        return self._some(self.dataset.split(self.split))

    @cached_property
    def validation(self) -> Split:
        """The run's own validation images."""
        return (self.run.dataset() if self.foreign else self.dataset).validation

    @cached_property
    def held_out(self) -> Outputs:
        """What the model says of the validation images."""
        return outputs(self.model, self.validation.images)

    @cached_property
    def training(self) -> Split:
        """The run's own training images, at most ``TRAINING_IMAGES`` of them."""
        train = (self.run.dataset() if self.foreign else self.dataset).train
        return train.take(chosen(len(train.labels), TRAINING_IMAGES, self.seed).numpy())

    def training_outputs(self, progress: Callable[[int], None] = lambda _: None) -> Outputs:
        """What the model says of the training images; taken once and kept."""
        if "training" not in self._passes:
            self._passes["training"] = outputs(self.model, self.training.images, progress=progress)
        return self._passes["training"]

    @cached_property
    def temperature(self) -> float | None:
        """The temperature fitted on the validation images; None where all of them are classified rightly."""
        return fit_temperature(self.held_out.logits, self.validation.labels)

    def _some(self, split: Split) -> Split:
        return split.take(chosen(len(split.labels), self.n, self.seed).numpy())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def gamma2(self) -> float:
        """The model's estimated variance; RunError before the end of training, where it is estimated."""
        if self.model.gamma2 is None:
            raise RunError(
                f"run {self.run.id} has no gamma^2 at step {self.step}: it is estimated when training ends",
                f"finish it first: gmmc train --resume --run {self.run.path}",
            )
        return self.model.gamma2

    def outputs(self, *, mass: bool = False, at: Callable[[int], None] = lambda _: None) -> Outputs:
        """What the model says of the images, with the gradients of log p(x) where ``mass`` is asked for; taken once and kept."""
        kept = self._passes.get("mass") or (None if mass else self._passes.get("plain"))
        if kept is None:
            kept = outputs(self.model, self.images.images, self.gamma2 if mass else None, at)
            self._passes["mass" if mass else "plain"] = kept
        return kept

    def result(self, command: str, protocol: dict[str, Any], values: dict[str, Any], n: int | None = None) -> dict[str, Any]:
        """A result object of this subject (docs/run-directory.md)."""
        return {
            "schema": 1,
            "command": command,
            "run": self.run.id,
            "step": self.step,
            "dataset": self.dataset.title,
            "split": self.split,
            "n": len(self.images.labels) if n is None else n,
            "protocol": protocol,
            "values": values,
        }

    def name(self, command: str, *departures: str) -> str:
        """What a result is saved as: the command, and how it departs from its defaults, the last checkpoint and all test images."""
        about = [*departures, *self.asked, *[self.dataset.title] * self.foreign]
        about += [self.split] * (self.foreign or self.split != "test") + ["best"] * self.best
        some = len(self.images.labels) < len(self.dataset.split(self.split).labels)
        about += [f"n{self.n}"] * some + [f"seed {self.seed}"] * (self.seed != SEED and (some or command not in NOTHING_DRAWN))
        return " ".join([command, *about])


FITTING = "evaluate a run trained on images like these; gmmc eval ood compares with images of any kind"


def chosen(total: int, n: int | None, seed: int) -> torch.Tensor:
    """Return the positions of at most ``n`` of ``total`` images, drawn at random by ``seed``, in ascending order."""
    if n is None or n >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=stream("cpu", seed, "subset"))[:n].sort().values


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]} x {shape[2]} x {shape[0]}"
