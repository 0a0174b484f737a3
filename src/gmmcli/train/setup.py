"""Setup: recipe, data and device of a training, checked against each other."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gmmcli.checkpoint import Checkpoint
from gmmcli.core.classifier import Classifier
from gmmcli.core.compute import has_fast_bf16
from gmmcli.core.protocols import Starts
from gmmcli.data.dataset import Dataset, Split
from gmmcli.data.loader import Loader
from gmmcli.distributed import from_main, main_first, take_from_main, world
from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.train.initial import initial_weights
from gmmcli.train.phases import Phase, phases
from gmmcli.train.state import TrainState
from gmmcli.train.tensorboard import check_installed


@dataclass(frozen=True)
class Setup:
    """Everything that is constant during a training."""

    recipe: Recipe
    dataset: Dataset
    device: torch.device
    loader: Loader
    validation: Split

    @classmethod
    def prepare(cls, recipe: Recipe, dataset: Dataset | None = None) -> Self:
        """Choose the device, and load the recipe's data where none is given.

        Raises:
            DataError: the dataset is missing or broken.
            RecipeError: the recipe fits neither the data nor the machine, or cannot be divided among the processes.
            MissingPartError: it asks for TensorBoard's files, and the package is not installed.
        """
        check_installed(recipe.log)
        try:
            device = recipe.compute.select()
        except ValueError as error:
            raise RecipeError(f"compute.{error}", 'set compute.device = "auto"') from error
        precision: Any = from_main(recipe.compute.resolved(device).precision)  # one for all, on whatever machines
        recipe = replace(recipe, compute=replace(recipe.compute, precision=precision))
        dataset = dataset or main_first(recipe.data.source.load)
        dataset.check_trainable()
        try:
            recipe.check(dataset.n_classes)
            recipe.model.check_head(dataset.n_classes)
        except ValueError as error:
            raise RecipeError(f"{error} ({recipe.name} on {dataset.name})") from error
        _check_divisible(recipe, dataset.n_classes, world().size)
        loader = recipe.data.build(dataset.train, device, recipe.seed)
        return cls(recipe, dataset, device, loader, dataset.validation.to(device))

    @property
    def n_steps(self) -> int:
        """Training steps of all stages together."""
        return self.recipe.epochs * self.loader.steps_per_epoch

    @property
    def switches(self) -> list[int]:
        """The numbers of training steps after which one stage ends and the next begins."""
        ends = list(accumulate(stage.epochs * self.loader.steps_per_epoch for stage in self.recipe.stages))
        return ends[:-1]

    @property
    def warnings(self) -> list[str]:
        """Settings that work, but probably not as intended."""
        found = []
        if self.recipe.compute.precision == "bf16" and not has_fast_bf16(self.device):
            found.append(
                "bf16 is no faster than fp32 on this machine, and many times slower where it is emulated; set compute.precision=fp32"
            )
        for i, stage in enumerate(self.recipe.stages):
            if stage.objective.needs_negatives and getattr(self.recipe.model.backbone, "norm", None) == "batch" and not stage.freeze_norm:
                found.append(
                    f"stage {i} normalises real and sampled images with batch statistics, while chains use the running statistics; "
                    f"set stages.{i}.freeze_norm=true after a discriminative stage, or model.backbone.norm"
                )
            if world().size > 1 and getattr(self.recipe.model.backbone, "norm", None) == "batch" and not stage.freeze_norm:
                images = self.recipe.data.batch_size // world().size
                found.append(f"stage {i} normalises with the statistics of each process's {images} images, not of the whole batch")
        return found

    @cached_property
    def starts(self) -> Starts:
        """Where chains start, fitted once and shared by the states of all rollbacks, to the training images that fit in memory."""
        seed = stream("cpu", self.recipe.seed, "starts").initial_seed()
        return self.recipe.chains.start.fit(*self.loader.split.some(seed).batch(), self.dataset.n_classes, seed)

    @cached_property
    def initial_weights(self) -> dict[str, Tensor]:
        """The weights that ``init.from`` names, read once; empty where it names none."""
        return initial_weights(self.recipe, self.dataset)

    def initial_state(self) -> TrainState:
        """The state before the first step, a function of the recipe's seed and of the weights that ``init.from`` names."""
        model, chains = self._model(), None
        if self.initial_weights:
            model.load_state_dict(self.initial_weights)
        if self.recipe.needs_chains:
            generator = stream(self.device, self.recipe.seed, "buffer", *world().key)
            chains = self.recipe.chains.build(self.starts, self.dataset.n_classes, generator)
        return TrainState(model, chains, self.phase_at(0))

    def restored(self, checkpoint: Checkpoint | None) -> TrainState:
        """The state of a checkpoint, with the optimiser that took its last step; without one that before the first step.

        Among several processes the choice of the main one counts, whichever files the others see yet.

        Raises:
            CheckpointError: its files are damaged.
        """
        path = from_main(str(checkpoint.path) if checkpoint else "")
        if not path:
            return self.initial_state()
        checkpoint = Checkpoint(Path(path))
        state = TrainState(self._model(), None, self.phase_at(max(0, checkpoint.step - 1)))
        state.restore(checkpoint, self.recipe, self.dataset.n_classes)
        return state

    def _model(self) -> Classifier:
        """A model with random weights, the same in all processes: another kind of processor may draw other last digits."""
        recipe, dataset = self.recipe, self.dataset
        model = recipe.model.build(dataset.n_classes, dataset.shape[0], stream("cpu", recipe.seed, "weights").initial_seed())
        model = recipe.compute.place(model, self.device)
        take_from_main(model.state_dict().values())
        return model

    def phase_at(self, step: int) -> Phase:
        """The phase that takes a step, from 0 to ``n_steps - 1``."""
        return [phase for phase in phases(self.recipe, self.loader.steps_per_epoch) if phase.begin <= step][-1]


def _check_divisible(recipe: Recipe, n_classes: int, n_processes: int) -> None:
    """Raise RecipeError where the processes cannot have equal shares of the batch, or not a slot of each class."""
    batch_size = recipe.data.batch_size
    if batch_size % n_processes:
        nearest = max(1, round(batch_size / n_processes)) * n_processes
        raise RecipeError(
            f"data.batch_size {batch_size} does not divide by {n_processes} processes; the nearest that does is {nearest}",
            "it is the batch of all processes together: change it, or the number of processes",
        )
    if recipe.needs_chains and (slots := recipe.chains.slots(n_classes)) < n_processes:
        raise RecipeError(
            f"chains.buffer_size {recipe.chains.buffer_size} has {slots} slots of a class, too few for {n_processes} processes",
            f"set it to {n_classes * n_processes} or more",
        )
