"""Attacks within a ball, each on the images that no earlier one has broken; and over growing radii."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gmmcli.attacks.adapter import Batch, run_on_batch
from gmmcli.attacks.attack import Attack, Outcome
from gmmcli.attacks.losses import LOSSES, median_gap, ranked_targets
from gmmcli.attacks.pixel_model import CHUNK, PixelModel, pixel_logits
from gmmcli.attacks.verify import verify
from gmmcli.rng import stream
from gmmcli.types import Labels

TARGETS = 9


def run(
    attack: Attack,
    model: PixelModel,
    pixels: Tensor,
    labels: Labels,
    eps: float,
    at: Callable[[int, int], None] = lambda done, standing: None,
) -> Outcome:
    """Attack images in [0, 1] that are classified rightly; raises GmmcError should a found image leave the ball or the range.

    Args:
        attack: which and how.
        model: what is attacked, frozen and in evaluation mode.
        pixels: clean images in [0, 1].
        labels: their true classes, which the model predicts.
        eps: radius in pixels; 0 leaves everything as it is.
        at: told after every chunk how many images are done, and how many of them stand.
    """
    parts: list[Outcome] = []
    done = left = 0
    scale = median_gap(pixel_logits(model, pixels)) if attack.loss == "ce-scaled" and len(pixels) else 1.0
    for chunk, own in zip(torch.split(pixels, CHUNK), torch.split(labels, CHUNK), strict=True):
        part = _on_a_chunk(attack, model, chunk, own, eps, scale, done) if eps else _untouched(chunk, own)
        parts.append(part)
        done, left = done + len(own), left + int(part.standing.sum())
        at(done, left)
    if not parts:
        return _untouched(pixels, labels)
    whole = Outcome(
        torch.cat([part.standing for part in parts]),
        torch.cat([part.adversarial for part in parts]),
        sum(part.forwards for part in parts),
        sum(part.gradients for part in parts),
        sum(part.zero_gradients for part in parts),
    )
    verify(model, pixels, labels, whole, eps, attack.norm)
    return whole


def _untouched(pixels: Tensor, labels: Labels) -> Outcome:
    return Outcome(torch.ones_like(labels, dtype=torch.bool), pixels, 0, 0, 0)


def _on_a_chunk(attack: Attack, model: PixelModel, pixels: Tensor, labels: Labels, eps: float, scale: float, first: int) -> Outcome:
    loss = LOSSES[attack.loss]
    clean = pixel_logits(model, pixels)
    standing, adversarial = torch.ones_like(labels, dtype=torch.bool), pixels.clone()
    forwards = gradients = zero_gradients = 0
    for restart in range(attack.restarts):
        for rank in range(min(TARGETS, clean.shape[1] - 1) if loss.targeted else 1):
            rows = standing.nonzero().squeeze(1)
            if not len(rows):
                break
            targets = ranked_targets(clean[rows], labels[rows], rank)
            batch = Batch.of(pixels[rows], labels[rows], targets, loss, scale, not attack.throughout)
            streams = [stream("cpu", attack.seed, attack.name, str(eps), restart, rank, first + row) for row in rows.tolist()]
            run_on_batch(attack, model, batch, pixels[rows], eps, streams)
            standing[rows], adversarial[rows] = batch.standing, batch.found
            forwards, gradients = forwards + batch.forwards, gradients + batch.gradients
            zero_gradients += batch.zero_gradients
    return Outcome(standing, adversarial, forwards, gradients, zero_gradients)


def over_eps(
    attack: Attack,
    model: PixelModel,
    pixels: Tensor,
    labels: Labels,
    eps: Sequence[float],
    at: Callable[[float, int, int], None] = lambda eps, done, standing: None,
) -> tuple[Tensor, Tensor, list[Outcome]]:
    """Run an attack at growing radii; what is broken at one is broken at every larger one, and is not attacked again.

    Returns:
        The radius at which each image fell (inf: at none; 0: misclassified from the start), its adversarial image, and the outcomes.
    """
    clean = pixel_logits(model, pixels).argmax(1) == labels
    fell = torch.where(clean, float("inf"), 0.0).double()
    adversarial, outcomes = pixels.clone(), []
    for radius in sorted(eps):
        rows = (fell == float("inf")).nonzero().squeeze(1)
        gone = len(labels) - len(rows)
        outcome = run(attack, model, pixels[rows], labels[rows], radius, partial(_later, at, radius, gone))
        fell[rows[~outcome.standing]] = radius
        adversarial[rows] = outcome.adversarial
        outcomes.append(outcome)
    return fell, adversarial, outcomes


def _later(at: Callable[[float, int, int], None], radius: float, gone: int, done: int, standing: int) -> None:
    """Tell of a radius with the images that had fallen before it."""
    at(radius, gone + done, standing)
