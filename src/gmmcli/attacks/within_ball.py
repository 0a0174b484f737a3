"""Attacks within a ball, each on the images that no earlier one has broken; and over growing radii."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO

import torch
from torch import Tensor

from gmmcli.attacks.adversary import AllBroken, AttackState
from gmmcli.attacks.algorithms import ATTACKS, seed_of
from gmmcli.attacks.attack import Attack, Outcome
from gmmcli.attacks.losses import LOSSES, median_gap, ranked_targets
from gmmcli.attacks.pixel_model import PixelModel, pixel_logits
from gmmcli.attacks.verify import verify
from gmmcli.distributed import divided, world
from gmmcli.rng import stream
from gmmcli.types import Labels, Logits

TARGETS = 9
CHUNK = 250
"""Images that attacks with one source of randomness for all of them share it with: a constant, so that figures do not depend on memory."""


def run(
    attack: Attack,
    model: PixelModel,
    pixels: Tensor,
    labels: Labels,
    eps: float,
    progress: Callable[[int, int], None] = lambda done, unbroken: None,
    clean: Logits | None = None,
) -> Outcome:
    """Attack images in [0, 1] that are classified correctly; raises GmmcError should a found image leave the ball or the range.

    Each of several processes attacks its share of the chunks, and all return the whole.

    Args:
        attack: which and how.
        model: what is attacked, frozen and in evaluation mode.
        pixels: clean images in [0, 1].
        labels: their true classes, which the model predicts.
        eps: radius in pixels; 0 leaves everything as it is.
        progress: told after every chunk how many images are done, and how many of them are still classified correctly.
        clean: the logits of the clean images where they are known.
    """
    clean = common_logits(model, pixels) if clean is None else clean
    scale = median_gap(clean) if attack.loss == "ce-scaled" and len(pixels) else 1.0
    chunks = list(zip(*(torch.split(of, CHUNK) for of in (pixels, labels, clean)), strict=True))

    def attacked(mine: slice) -> tuple[Tensor, Tensor, Tensor]:
        parts: list[Outcome] = []
        done = left = 0
        for i in range(len(chunks))[mine]:
            chunk, true, logits = chunks[i]
            parts.append(_on_a_chunk(attack, model, chunk, true, logits, eps, scale, i * CHUNK) if eps else _untouched(chunk, true))
            done, left = done + len(true), left + int(parts[-1].unbroken.sum())
            progress(min(len(labels), done * world().size), min(len(labels), left * world().size))  # processes are taken to be equally far
        unbroken, adversarial, *counts = zip(*parts, strict=True)
        return torch.cat(unbroken), torch.cat(adversarial), torch.tensor([[sum(count) for count in counts]])

    unbroken, adversarial, counts = divided(len(chunks), attacked)
    whole = Outcome(unbroken, adversarial, *counts.sum(0).tolist())
    verify(model, pixels, labels, whole, eps, attack.norm)
    return whole


def common_logits(model: PixelModel, pixels: Tensor) -> Logits:
    """Return ``pixel_logits`` that are the same in all processes, each of which computes its share: which images stand is one question."""
    return divided(len(pixels), lambda mine: (pixel_logits(model, pixels[mine]),))[0]


def _untouched(pixels: Tensor, labels: Labels) -> Outcome:
    return Outcome(torch.ones_like(labels, dtype=torch.bool), pixels, 0, 0, 0)


def _on_a_chunk(
    attack: Attack, model: PixelModel, pixels: Tensor, labels: Labels, clean: Logits, eps: float, scale: float, first: int
) -> Outcome:
    loss = LOSSES[attack.loss]
    unbroken, adversarial = torch.ones_like(labels, dtype=torch.bool), pixels.clone()
    forwards = gradients = zero_gradients = 0
    for restart in range(attack.restarts):
        for rank in range(min(TARGETS, clean.shape[1] - 1) if loss.targeted else 1):
            rows = unbroken.nonzero().squeeze(1)
            if not len(rows):
                break
            targets = ranked_targets(clean[rows], labels[rows], rank)
            state = AttackState.of(pixels[rows], labels[rows], targets, loss, scale, not attack.throughout)
            streams = [stream("cpu", attack.seed, attack.name, str(eps), restart, rank, first + row) for row in rows.tolist()]
            _once(attack, model, state, pixels[rows], eps, streams)
            unbroken[rows], adversarial[rows] = state.unbroken, state.found
            forwards, gradients = forwards + state.forwards, gradients + state.gradients
            zero_gradients += state.zero_gradients
    return Outcome(unbroken, adversarial, forwards, gradients, zero_gradients)


def _once(attack: Attack, model: PixelModel, state: AttackState, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]) -> None:
    """Run the algorithm once on a batch, and look at its last images, which it never classified itself."""
    with _quiet(seed_of(streams)):
        try:
            last = ATTACKS[attack.kind](attack, model, state, pixels, eps, streams)
        except AllBroken:
            return
    rows = state.unbroken.nonzero().squeeze(1)
    state.forwards += len(rows)
    broken = rows[pixel_logits(model, last[rows]).argmax(1) != state.labels[rows]] if len(rows) else rows
    state.unbroken[broken] = False
    state.found[broken] = last[broken]


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Contain what torchattacks does to the world: it draws from torch's global generator, and prints."""
    with torch.random.fork_rng(), redirect_stdout(StringIO()), warnings.catch_warnings():
        torch.manual_seed(seed)
        yield


def over_eps(
    attack: Attack,
    model: PixelModel,
    pixels: Tensor,
    labels: Labels,
    eps: Sequence[float],
    progress: Callable[[float, int, int], None] = lambda eps, done, unbroken: None,
) -> tuple[Tensor, Tensor, list[Outcome]]:
    """Run an attack at growing radii; what is broken at one is broken at every larger one, and is not attacked again.

    Returns:
        The radius at which each image fell (inf: at none; 0: misclassified from the start), its adversarial image, and the outcomes.
    """
    clean = common_logits(model, pixels)
    fell = torch.where(clean.argmax(1) == labels, float("inf"), 0.0).double()
    adversarial, outcomes = pixels.clone(), []
    for radius in sorted(eps):
        rows = (fell == float("inf")).nonzero().squeeze(1)
        gone = len(labels) - len(rows)
        outcome = run(attack, model, pixels[rows], labels[rows], radius, partial(_later, progress, radius, gone), clean[rows])
        fell[rows[~outcome.unbroken]] = radius
        adversarial[rows] = outcome.adversarial
        outcomes.append(outcome)
    return fell, adversarial, outcomes


def _later(progress: Callable[[float, int, int], None], radius: float, gone: int, done: int, unbroken: int) -> None:
    """Tell of a radius with the images that had fallen before it."""
    progress(radius, gone + done, unbroken)
