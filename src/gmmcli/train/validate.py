"""Validation: what a model is worth while training goes on, and whether it is the best so far."""

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import torch

from gmmcli.core.chains import CHUNK, PersistentChains, fresh_samples
from gmmcli.core.classifier import Classifier, predict
from gmmcli.data.dataset import Split
from gmmcli.recipe import Criterion, Stage
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.types import Logits, RawImages, to_bytes

AT_ONCE = 500  # images, as many as ``predict`` takes at a time


class Distance(NamedTuple):
    """How far samples are from the validation images, and in which space."""

    space: str
    of: Callable[[RawImages], float]


def validate(setup: Setup, state: TrainState, run: Run, stage: Stage, distance: Distance | None) -> bool:
    """Log what the published model is worth, in the stage that took the last step; return whether it is the best so far.

    Samples are compared in stages that train on chains alone: before, the energy has not learnt where images are.
    """
    predicted = logits(state.published, setup.validation).argmax(1)
    accuracy = float((predicted == setup.validation.labels).float().mean())
    line: dict[str, Any] = {"step": state.step, "validation_accuracy": accuracy}
    found, space = None, None
    if setup.recipe.validates_samples and distance and state.chains and stage.objective.needs_negatives:
        found, space = _distance(setup, state, state.chains, distance), distance.space
        line |= {"sample_distance": found, "sample_space": space}
    run.log(line)
    criterion = setup.recipe.log.best
    best = rank(criterion, state.best_accuracy, state.best_distance if state.best_space == space else None)
    improved = rank(criterion, accuracy, found) < best
    if improved:
        state.best_accuracy, state.best_distance, state.best_space, state.best_step = accuracy, found, space, state.step
    return improved


def logits(model: Classifier, split: Split) -> Logits:
    """Return the logits of a split's images, read a chunk at a time."""
    return torch.cat([predict(model, images) for images in split.chunks(AT_ONCE)])


def rank(criterion: Criterion, accuracy: float, distance: float | None = None) -> tuple[float, ...]:
    """Return what the best checkpoint has lowest; infinite where it takes a distance and there is none.

    Of equal products the lower distance is better: without errors every product is 0.
    """
    if criterion == "accuracy":
        return (1 - accuracy,)
    if distance is None:
        return (inf,)
    return (distance,) if criterion == "samples" else ((1 - accuracy) * distance, distance)


def _distance(setup: Setup, state: TrainState, chains: PersistentChains, distance: Distance) -> float | None:
    """Draw samples as ``gmmc sample`` does, at every validation from the same randomness; None where they are not finite."""
    recipe, device = setup.recipe, setup.device
    labels = torch.arange(setup.dataset.n_classes, device=device).repeat_interleave(recipe.log.validate_samples)
    parts = []
    for i, part in enumerate(torch.split(labels, CHUNK)):
        generator = stream(device, recipe.seed, "validation samples", i)
        parts.append(fresh_samples(state.published, recipe.chains.of_classes, chains.starts, part, generator))
    images = torch.cat(parts)
    return distance.of(to_bytes(images)) if bool(images.isfinite().all()) else None
