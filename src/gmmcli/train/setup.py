"""Setup: recipe, data and device of a training, checked against each other."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from gmmcli.checkpoint import Checkpoint
from gmmcli.core.compute import has_fast_bf16
from gmmcli.core.protocols import Starts
from gmmcli.data.dataset import Dataset, Split
from gmmcli.data.loader import Loader
from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.train.initial import initial_weights
from gmmcli.train.phases import Phase, phases
from gmmcli.train.state import TrainState


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
            RecipeError: the recipe fits neither the data nor the machine.
        """
        try:
            device = recipe.compute.select()
        except ValueError as error:
            raise RecipeError(f"compute.{error}", 'set compute.device = "auto"') from error
        recipe = replace(recipe, compute=recipe.compute.resolved(device))
        dataset = dataset or recipe.data.source.load()
        dataset.check_trainable()
        try:
            recipe.check(dataset.n_classes)
            recipe.model.check_head(dataset.n_classes)
        except ValueError as error:
            raise RecipeError(f"{error} ({recipe.name} on {dataset.name})") from error
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
            found.append("this machine has no bfloat16 instructions: bf16 is emulated and many times slower; set compute.precision=fp32")
        for i, stage in enumerate(self.recipe.stages):
            if stage.objective.needs_negatives and getattr(self.recipe.model.backbone, "norm", None) == "batch" and not stage.freeze_norm:
                found.append(
                    f"stage {i} normalises real and sampled images with batch statistics, while chains use the running statistics; "
                    f"set stages.{i}.freeze_norm=true after a discriminative stage, or model.backbone.norm"
                )
        return found

    @cached_property
    def starts(self) -> Starts:
        """Where chains start, fitted to the training images once and shared by the states of all rollbacks."""
        train, seed = self.loader.split, stream("cpu", self.recipe.seed, "starts").initial_seed()
        return self.recipe.chains.start.fit(*train.batch(), self.dataset.n_classes, seed)

    @cached_property
    def initial_weights(self) -> dict[str, Tensor]:
        """The weights that ``init.from`` names, read once; empty where it names none."""
        return initial_weights(self.recipe, self.dataset)

    def initial_state(self) -> TrainState:
        """The state before the first step, a function of the recipe's seed and of the weights that ``init.from`` names."""
        return self._state(self.initial_weights)

    def _state(self, weights: dict[str, Tensor]) -> TrainState:
        """A state of no steps, with these weights where there are any, else random ones."""
        recipe, dataset = self.recipe, self.dataset
        model = recipe.model.build(dataset.n_classes, dataset.shape[0], stream("cpu", recipe.seed, "weights").initial_seed())
        if weights:
            model.load_state_dict(weights)
        model = recipe.compute.place(model, self.device)
        chains = None
        if recipe.needs_chains:
            chains = recipe.chains.build(self.starts, dataset.n_classes, stream(self.device, recipe.seed, "buffer"))
        return TrainState(model, chains, self.phase_at(0))

    def restored(self, checkpoint: Checkpoint) -> TrainState:
        """The state of a checkpoint, with the optimiser that took its last step; CheckpointError where its files are damaged."""
        state = self._state({})
        state.begin(self.phase_at(max(0, checkpoint.step - 1)))
        state.restore(checkpoint, self.recipe)
        return state

    def phase_at(self, step: int) -> Phase:
        """The phase that takes a step, from 0 to ``n_steps - 1``."""
        return [phase for phase in phases(self.recipe, self.loader.steps_per_epoch) if phase.begin <= step][-1]
