"""One training step: batch, chains, objective, guarded update."""

from dataclasses import dataclass

from torch import nn

from gmmcli.core.average import average_in
from gmmcli.core.classifier import Classifier
from gmmcli.core.protocols import Objective
from gmmcli.core.sharpness import ascended
from gmmcli.distributed import average, world
from gmmcli.recipe import Stage
from gmmcli.rng import stream
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.types import Loss, Negatives


@dataclass(frozen=True)
class StepReport:
    """What one training step leaves to log, of this process's images; tensors that may still be computing on the device."""

    stage: Stage
    loss: Loss
    negatives: Negatives | None
    learning_rate: float


def set_mode(model: Classifier, stage: Stage) -> None:
    """Put the model in training mode, except batch norm in a stage with ``freeze_norm``: its running statistics are used, not updated."""
    model.train()
    if stage.freeze_norm:
        for layer in _batch_norms(model):
            layer.eval()


def average_statistics(model: Classifier) -> None:
    """Give all processes the mean of their running statistics, where batch norm is in training mode and each has moved its own."""
    average([t for layer in _batch_norms(model) if layer.training for t in (layer.running_mean, layer.running_var) if t is not None])


def _batch_norms(model: Classifier) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]


def training_step(setup: Setup, state: TrainState, update: GuardedStep) -> StepReport:
    """Take the next step. Its randomness is a function of (seed, rollbacks, step, process), so a resume needs no generator state."""
    recipe, step = setup.recipe, state.step
    stage, ramp = recipe.stage_at(step / setup.loader.steps_per_epoch)
    rng = stream(setup.device, recipe.seed, state.rollbacks, "step", step, *world().key)
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
    average_statistics(state.model)
    if state.average is not None:
        average_in(state.average, state.model, optim.ema_decay, step - phase.begin, update.healthy)
    state.step += 1
    return StepReport(stage, loss, negatives, rate)
