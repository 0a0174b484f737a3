"""Attacks: torchattacks' algorithms, each on the images that still stand."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gmmcli.attacks.adversary import Adversary, AllBroken, Batch, PixelModel
from gmmcli.attacks.losses import LOSSES, median_gap, ranked_targets
from gmmcli.errors import DivergedError, GmmcError, RecipeError
from gmmcli.rng import stream
from gmmcli.types import Labels, Logits

Norm = Literal["linf", "l2"]
Kind = Literal["fgsm", "pgd", "apgd", "square"]
CHUNK = 250
TARGETS = 9
DEFAULT_EPS = {"linf": [8 / 255], "l2": [0.5]}
TOLERANCE = 1e-5  # of float32 sums: an L2 norm over thousands of pixels


@dataclass(frozen=True)
class Attack:
    """One attack and its settings."""

    kind: Kind = "pgd"
    loss: str = "ce"
    norm: Norm = "linf"
    steps: int = 40
    """Gradient steps; for square the queries."""
    step_size: float | None = None
    """As a share of eps; 2.5 / steps by default (Madry et al. 2018)."""
    restarts: int = 1
    seed: int = 1
    throughout: bool = False
    """Go on with images that are broken: what transfers best, and what leaving them out is measured against."""

    @property
    def name(self) -> str:
        """What it is called in results."""
        return self.kind if self.kind == "square" else f"{self.kind}-{self.loss}"

    def check(self, n_classes: int) -> None:
        """Raise RecipeError for a loss that does not exist, or not with so few classes, or an attack that has not this norm."""
        if self.loss not in LOSSES:
            raise RecipeError(f"no attack loss {self.loss!r}", f"give one of {', '.join(LOSSES)}")
        needed = LOSSES[self.loss].n_classes
        if n_classes < needed:
            raise RecipeError(f"loss {self.loss} compares {needed} logits, and this run has {n_classes} classes", "take margin")
        if self.kind == "fgsm" and self.norm == "l2":
            raise RecipeError("fgsm is a step in the linf norm", "take pgd with --steps 1 for l2")


PLAIN = {
    "fgsm": Attack("fgsm", steps=1),
    "pgd": Attack("pgd"),
    "apgd": Attack("apgd", "dlr", steps=100),
    "square": Attack("square", "margin", steps=5000),
}
"""What each command does by itself."""


class Outcome(NamedTuple):
    """What an attack left of a set of images, in their order."""

    standing: Tensor
    """Images that are still classified rightly, shape (batch,)."""
    adversarial: Tensor
    """Where broken, the misclassified image in [0, 1]; else the clean one."""
    forwards: int
    gradients: int
    zero_gradients: int


@torch.no_grad()
def pixel_logits(model: PixelModel, pixels: Tensor) -> Logits:
    """Return the logits of images in [0, 1], a chunk at a time; DivergedError where they are not finite."""
    logits = torch.cat([model(part) for part in torch.split(pixels, CHUNK)])
    if not bool(logits.isfinite().all()):
        raise DivergedError(
            "the model's logits are not finite: there is nothing to attack", "it has diverged: take an earlier checkpoint (--best)"
        )
    return logits


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
            _attacked(attack, model, batch, pixels[rows], eps, streams)
            standing[rows], adversarial[rows] = batch.standing, batch.found
            forwards, gradients = forwards + batch.forwards, gradients + batch.gradients
            zero_gradients += batch.zero_gradients
    return Outcome(standing, adversarial, forwards, gradients, zero_gradients)


def _attacked(attack: Attack, model: PixelModel, batch: Batch, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]) -> None:
    """Run torchattacks once on a batch, and settle what its last images, which it never looked at, have done."""
    seed = streams[0].initial_seed() % 2**32
    algorithm, labels = _algorithm(attack, model, batch, eps, seed)
    with _quiet(seed), _Starts(streams) if attack.kind == "pgd" else nullcontext():
        try:
            last = algorithm(pixels, labels).detach()
        except AllBroken:
            return
    rows = batch.standing.nonzero().squeeze(1)
    batch.forwards += len(rows)
    broken = rows[pixel_logits(model, last[rows]).argmax(1) != batch.labels[rows]] if len(rows) else rows
    batch.standing[broken] = False
    batch.found[broken] = last[broken]


def _algorithm(attack: Attack, model: PixelModel, batch: Batch, eps: float, seed: int) -> tuple[Any, Labels]:
    """The torchattacks attack, and the labels it wants: class 0 where its cross-entropy stands in for our loss."""
    from gmmcli.vision import torchvision

    torchvision("models")  # torchattacks imports it
    import torchattacks

    zeros = torch.zeros_like(batch.labels)
    step = eps * (attack.step_size or 2.5 / attack.steps)
    norm = {"linf": "Linf", "l2": "L2"}[attack.norm]
    match attack.kind:
        case "fgsm":
            return torchattacks.FGSM(Adversary(model, batch, linear=True), eps=eps), zeros
        case "pgd":
            pgd = torchattacks.PGD if attack.norm == "linf" else torchattacks.PGDL2
            return pgd(Adversary(model, batch, linear=True), eps=eps, alpha=step, steps=attack.steps), zeros
        case "apgd":
            apgd = torchattacks.APGD(Adversary(model, batch, linear=False), norm=norm, eps=eps, steps=attack.steps, seed=seed, loss="dlr")
            apgd.dlr_loss = _masked(batch)
            return apgd, batch.labels
        case "square":
            return torchattacks.Square(_Counting(model, batch), norm=norm, eps=eps, n_queries=attack.steps, seed=seed), batch.labels


def _masked(batch: Batch) -> Callable[[Logits, Labels], Tensor]:
    """Our loss in the form APGD wants; rows that have fallen are out of its sight."""

    def value(logits: Logits, labels: Labels) -> Tensor:
        per_image = batch.loss.value(logits / batch.scale, labels, batch.targets)
        return torch.where(batch.standing, per_image, torch.zeros_like(per_image))

    return value


class _Counting(torch.nn.Module):
    """The plain model for Square, which drops broken rows by itself and has no gradients."""

    def __init__(self, model: PixelModel, batch: Batch) -> None:
        super().__init__()
        self.model, self.batch = model, batch
        self.eval()

    def forward(self, pixels: Tensor) -> Logits:
        self.batch.forwards += len(pixels)
        logits: Logits = self.model(pixels)
        return logits


class _Starts(TorchFunctionMode):
    """Random starts image by image: what PGD draws for a batch comes from a stream of each image's own.

    An image's outcome then depends neither on which others share its batch nor on the device.
    """

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.streams = streams

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (Tensor.uniform_, Tensor.normal_):
            return func(*args, **(kwargs or {}))
        batch, *bounds = args
        for image, own in zip(batch, self.streams, strict=True):
            image.copy_(func(torch.empty_like(image, device="cpu"), *bounds, generator=own))
        return batch


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Contain what torchattacks does to the world: it draws from torch's global generator, and prints."""
    with torch.random.fork_rng(), redirect_stdout(StringIO()), warnings.catch_warnings():
        torch.manual_seed(seed)
        yield


def verify(model: PixelModel, pixels: Tensor, labels: Labels, outcome: Outcome, eps: float, norm: Norm) -> None:
    """Hold every found image to the ball and to [0, 1], and to being misclassified in truth; GmmcError otherwise: a bug, not a result."""
    broken = ~outcome.standing
    found = outcome.adversarial[broken]
    if not len(found):
        return
    distance = distances(found, pixels[broken], norm)
    if float(distance.max()) > eps * (1 + TOLERANCE) + 1e-6 or float(found.min()) < 0 or float(found.max()) > 1:
        raise GmmcError(
            f"an attack left its ball: {norm} {float(distance.max()):.6g} of {eps:.6g}, pixels {found.min():.6g} to {found.max():.6g}"
        )
    if bool((pixel_logits(model, found).argmax(1) == labels[broken]).any()):
        raise GmmcError("an attack claimed an image that is classified rightly", "try --float64: the model's decision hangs on rounding")


def distances(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Return the distance of each image to its counterpart."""
    difference = (a - b).flatten(1)
    return difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)


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
