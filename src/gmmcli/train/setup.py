"""A recipe meets its data and its machine: everything that stays the same through a training."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Self

import torch
from torch import nn

from gmmcli.checkpoint import Checkpoint
from gmmcli.core.average import average_in
from gmmcli.core.classifier import Classifier
from gmmcli.core.compute import has_fast_bf16
from gmmcli.core.protocols import Objective, Starts
from gmmcli.core.sharpness import ascended
from gmmcli.data.dataset import Dataset, Split
from gmmcli.data.loader import Loader
from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe, Stage
from gmmcli.rng import stream
from gmmcli.train.guard import GuardedStep
from gmmcli.train.phases import Phase, phases
from gmmcli.train.state import TrainState
from gmmcli.types import Loss, Negatives


@dataclass(frozen=True)
class Setup:
    """Recipe, data and device, known to fit each other."""

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
        """After how many training steps each stage gives way to the next."""
        ends = list(accumulate(stage.epochs * self.loader.steps_per_epoch for stage in self.recipe.stages))
        return ends[:-1]

    @property
    def warnings(self) -> list[str]:
        """What will work, but not as hoped for."""
        found = []
        if self.recipe.compute.precision == "bf16" and not has_fast_bf16(self.device):
            found.append("this machine has no bfloat16 instructions: bf16 is emulated, many times slower; set compute.precision=fp32")
        for i, stage in enumerate(self.recipe.stages):
            if stage.objective.needs_negatives and self.recipe.model.backbone.norm == "batch" and not stage.freeze_norm:
                found.append(
                    f"stage {i} normalises real and sampled images by their batch, while chains use the running statistics; "
                    f"set stages.{i}.freeze_norm=true after a discriminative stage, or model.backbone.norm"
                )
        return found

    @cached_property
    def starts(self) -> Starts:
        """Where chains set out, fitted once to the training images: rollbacks and resumes begin with a new state each."""
        train, seed = self.loader.split, stream("cpu", self.recipe.seed, "starts").initial_seed()
        return self.recipe.chains.start.fit(*train.batch(), self.dataset.n_classes, seed)

    def initial_state(self) -> TrainState:
        """The state before the first step, a function of the recipe's seed."""
        recipe, dataset = self.recipe, self.dataset
        model = recipe.model.build(dataset.n_classes, dataset.shape[0], stream("cpu", recipe.seed, "weights").initial_seed())
        model = recipe.compute.place(model, self.device)
        chains = None
        if recipe.needs_chains:
            chains = recipe.chains.build(self.starts, dataset.n_classes, stream(self.device, recipe.seed, "buffer"))
        return TrainState(model, chains, self.phase_at(0))

    def restored(self, checkpoint: Checkpoint) -> TrainState:
        """The state of a checkpoint, with the optimiser that took its last step; CheckpointError where its files are damaged."""
        state = self.initial_state()
        state.begin(self.phase_at(max(0, checkpoint.step - 1)))
        state.restore(checkpoint, self.recipe)
        return state

    def phase_at(self, step: int) -> Phase:
        """The phase that takes a step, from 0 to ``n_steps - 1``."""
        return [phase for phase in phases(self.recipe, self.loader.steps_per_epoch) if phase.begin <= step][-1]


@dataclass(frozen=True)
class StepReport:
    """What one training step leaves to log; tensors that nobody has waited for yet."""

    stage: Stage
    loss: Loss
    negatives: Negatives | None
    learning_rate: float


def set_mode(model: Classifier, stage: Stage) -> None:
    """Put the model in training mode; a stage with a frozen norm leaves batch norm in evaluation mode, where its statistics stand still."""
    model.train()
    if stage.freeze_norm:
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()


def training_step(setup: Setup, state: TrainState, update: GuardedStep) -> StepReport:
    """Take the next step. Its randomness is a function of (seed, rollbacks, step): a resume needs no generator's state."""
    recipe, step = setup.recipe, state.step
    stage, ramp = recipe.stage_at(step / setup.loader.steps_per_epoch)
    rng = stream(setup.device, recipe.seed, state.rollbacks, "step", step)
    objective: Objective = stage.objective
    batch = setup.loader.batch(step, rng, objective.clean_positive)
    set_mode(state.model, stage)
    negatives = None
    if state.chains is not None and objective.needs_negatives:
        negatives = state.chains(state.model, batch.labels, rng)
    phase = setup.phase_at(step)
    if phase != state.phase:
        state.begin(phase)
        update.optimizer = state.optimizer
    optim, rate = phase.optim, phase.rate(step) * recipe.guard.lr_factor**state.rollbacks
    uphill = ascended(state.model, optim.sam_rho, optim.sam_adaptive) if optim.sam_rho else None
    loss = update(lambda: objective(state.model, batch, negatives, ramp), rate, uphill)
    if state.average is not None:
        average_in(state.average, state.model, optim.ema_decay, step - phase.begin, update.healthy)
    state.step += 1
    return StepReport(stage, loss, negatives, rate)
