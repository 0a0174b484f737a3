"""Validation during training: accuracy, sample distance, and which checkpoint is the best."""

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, Protocol

import torch

from gmmcli.core.chains import CHUNK, PersistentChains, fresh_samples
from gmmcli.distributed import from_main, gather, world
from gmmcli.recipe import Criterion, Stage
from gmmcli.rng import stream
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState, of_each_image
from gmmcli.types import RawImages, to_bytes


class Distance(NamedTuple):
    """A distance of samples to the validation images, and the name of its feature space."""

    space: str
    of: Callable[[RawImages], float]


class Logs(Protocol):
    """What lines can be logged to: a run, or the log of its training."""

    def log(self, line: dict[str, Any]) -> None:
        """Log one line."""


def validate(setup: Setup, state: TrainState, log: Logs, stage: Stage, distance: Distance | None) -> bool:
    """Validate the published model and log the result; return whether it is the best so far.

    Samples are compared if ``stage``, that of the last step, trains on chains: earlier the energy is not trained for sampling.
    """
    right = of_each_image(state.published, setup.validation, lambda logits, labels: (logits.argmax(1) == labels).float())
    accuracy = float(right.mean())
    line: dict[str, Any] = {"step": state.step, "validation_accuracy": accuracy}
    found, space = None, None
    if setup.recipe.validates_samples and distance and state.chains and stage.objective.needs_negatives:
        found, space = _distance(setup, state, state.chains, distance), distance.space
        line |= {"sample_distance": found, "sample_space": space}
    log.log(line)
    criterion = setup.recipe.log.best
    best = rank(criterion, state.best_accuracy, state.best_distance if state.best_space == space else None)
    improved = rank(criterion, accuracy, found) < best
    if improved:
        state.best_accuracy, state.best_distance, state.best_space, state.best_step = accuracy, found, space, state.step
    return improved


def rank(criterion: Criterion, accuracy: float, distance: float | None = None) -> tuple[float, ...]:
    """Return the criterion, lower is better; infinite where it needs a distance and there is none.

    Equal products are ordered by distance, since every product is 0 at 100% accuracy.
    """
    if criterion == "accuracy":
        return (1 - accuracy,)
    if distance is None:
        return (inf,)
    return (distance,) if criterion == "samples" else ((1 - accuracy) * distance, distance)


def _distance(setup: Setup, state: TrainState, chains: PersistentChains, distance: Distance) -> float | None:
    """Draw samples as ``gmmc sample`` does, with the same seed at every validation; None where they are not finite.

    Every process draws its share of the chunks; the main one compares, so that all have one figure.
    """
    recipe, device = setup.recipe, setup.device
    labels = torch.arange(setup.dataset.n_classes, device=device).repeat_interleave(recipe.log.validate_samples)
    chunks = list(enumerate(torch.split(labels, CHUNK)))
    parts = [torch.empty(0, *setup.dataset.shape, device=device)]
    for i, part in chunks[world().share(len(chunks))]:
        generator = stream(device, recipe.seed, "validation samples", i)
        parts.append(fresh_samples(state.published, recipe.chains.of_classes, chains.starts, part, generator))
    images = gather(torch.cat(parts))
    if not bool(images.isfinite().all()):
        return None
    return float(from_main(repr(distance.of(to_bytes(images))) if world().is_main else ""))
