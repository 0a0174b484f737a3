"""The attacks there are: torchattacks' algorithms, and those that installed packages add."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gmmcli.attacks.adversary import Adversary, AttackState
from gmmcli.attacks.attack import Attack, Norm
from gmmcli.attacks.losses import LOSSES
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.errors import RecipeError
from gmmcli.registry import Registry
from gmmcli.rng import stream
from gmmcli.types import Labels, Logits

NORMS = {"linf": "Linf", "l2": "L2"}  # as torchattacks writes them
PLACES = 2**16
"""Images whose logits Square remembers at most: several hundred of each image of a batch."""


@runtime_checkable
class Algorithm(Protocol):
    """How an attack searches a ball. Restarts, targets, leaving broken images out and checking the result are done for it."""

    @property
    def defaults(self) -> Attack:
        """The settings of ``gmmc attack NAME`` without options."""

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms of perturbation that it can bound."""

    def __call__(
        self, attack: Attack, model: PixelModel, state: AttackState, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """Attack one batch, once.

        Args:
            attack: the settings.
            model: what is attacked; ``Adversary(model, state, linear=True)`` is how to see it, and ``gradient`` where to go.
            state: which images are left, and the loss to maximise.
            pixels: clean images in [0, 1], shape (batch, channel, height, width).
            eps: radius of the ball, positive.
            streams: a source of randomness for each image, so that its outcome does not depend on the others.

        Returns:
            The images where it stopped, within the ball and [0, 1]; raising ``AllBroken`` from the adversary is an end, too.
        """


class FGSM:
    """One signed gradient step (Goodfellow et al. 2015)."""

    defaults: ClassVar = Attack("fgsm", steps=1)
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)

    def __call__(
        self, attack: Attack, model: PixelModel, state: AttackState, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """See ``Algorithm``."""
        return _run(_torchattacks().FGSM(Adversary(model, state, linear=True), eps=eps), pixels, torch.zeros_like(state.labels))


class PGD:
    """Projected gradient steps from a random start (Madry et al. 2018)."""

    defaults: ClassVar = Attack("pgd")
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    def __call__(
        self, attack: Attack, model: PixelModel, state: AttackState, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """See ``Algorithm``."""
        pgd = _torchattacks().PGD if attack.norm == "linf" else _torchattacks().PGDL2
        step = eps * (attack.step_size or 2.5 / attack.steps)
        algorithm = pgd(Adversary(model, state, linear=True), eps=eps, alpha=step, steps=attack.steps)
        with _Starts(streams):
            return _run(algorithm, pixels, torch.zeros_like(state.labels))


class APGD:
    """AutoAttack's PGD, which finds its step size by itself (Croce and Hein 2020)."""

    defaults: ClassVar = Attack("apgd", "dlr", steps=100)
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    def __call__(
        self, attack: Attack, model: PixelModel, state: AttackState, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """See ``Algorithm``."""
        adversary, seed = Adversary(model, state, linear=False), seed_of(streams)
        algorithm = _torchattacks().APGD(adversary, norm=NORMS[attack.norm], eps=eps, steps=attack.steps, seed=seed, loss="dlr")
        algorithm.dlr_loss = _masked(state)
        return _run(algorithm, pixels, state.labels)


class Square:
    """A random search without gradients (Andriushchenko et al. 2020)."""

    defaults: ClassVar = Attack("square", "margin", steps=5000)
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    def __call__(
        self, attack: Attack, model: PixelModel, state: AttackState, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """See ``Algorithm``."""
        counting = _Counting(model, state)
        square = _torchattacks().Square(counting, norm=NORMS[attack.norm], eps=eps, n_queries=attack.steps, seed=seed_of(streams))
        return _run(square, pixels, state.labels)


ATTACKS: Registry[Algorithm] = Registry("attacks", {"fgsm": FGSM(), "pgd": PGD(), "apgd": APGD(), "square": Square()}, Algorithm)


def configured(kind: str, **given: Any) -> Attack:
    """Return the attack of this name with its default settings but for those given; RecipeError where there is none."""
    return replace(ATTACKS.find(kind, "attack").defaults, kind=kind, **given)  # an entry point gives the name, whatever the defaults say


def check(attack: Attack, n_classes: int) -> None:
    """Raise RecipeError for an attack or a loss that does not exist, or does not fit the norm or the number of classes."""
    norms, loss = ATTACKS.find(attack.kind, "attack").norms, LOSSES.find(attack.loss, "attack loss")
    if n_classes < loss.n_classes:
        raise RecipeError(f"loss {attack.loss} compares {loss.n_classes} logits, and this run has {n_classes} classes", "use --loss margin")
    if attack.norm not in norms:
        raise RecipeError(f"{attack.kind} has no {attack.norm} form", f"use --norm {norms[0]}, or pgd, which has both")


def seed_of(streams: Sequence[torch.Generator]) -> int:
    """Return a seed for algorithms that draw from one source for the whole batch."""
    return streams[0].initial_seed() % 2**32


def _torchattacks() -> Any:
    from gmmcli.vision import torchvision

    torchvision("models")  # torchattacks imports it
    import torchattacks

    return torchattacks


def _run(algorithm: Any, pixels: Tensor, labels: Labels) -> Tensor:
    found: Tensor = algorithm(pixels, labels)
    return found.detach()


def _masked(state: AttackState) -> Callable[[Logits, Labels], Tensor]:
    """Our loss in the form APGD wants, 0 for broken images."""

    def value(logits: Logits, labels: Labels) -> Tensor:
        per_image = state.loss.value(logits / state.scale, labels, state.targets)
        return torch.where(state.unbroken, per_image, torch.zeros_like(per_image))

    return value


class _Counting(nn.Module):
    """The plain model for Square, which drops broken rows by itself and has no gradients.

    An image that Square has proposed before does not pass again: a small square often leaves an image as it is, or as it was when it was
    rejected. The logits are remembered in a table of a fixed size; of two images with one place in it the later one stays.
    """

    def __init__(self, model: PixelModel, state: AttackState) -> None:
        super().__init__()
        self.model, self.state = model, state
        self.places = self.logits = torch.empty(0)
        self.eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Logits:
        """Return the logits, shape (batch, class)."""
        marks = fingerprints(pixels)
        if not len(self.places):
            self.places = marks.new_full((PLACES,), -1)  # the mark of no image, as good as never; that of a black one is 0
        place = (marks >> 32) % len(self.places)  # of a product, the high bits are the mixed ones
        new = (self.places[place] != marks).nonzero().squeeze(1)
        self.state.forwards += len(new)
        if len(new):
            logits = torch.cat([self.model(part) for part in torch.split(pixels[new], self.model.at_a_time(pixels))])
            if not len(self.logits):
                self.logits = logits.new_empty(PLACES, logits.shape[1])
        known = self.logits[place]
        if len(new):
            known[new] = logits
            self.places[place[new]] = new  # who of several comes to a place is left to the device: ask who did
            came = new[self.places[place[new]] == new]
            self.logits[place[came]], self.places[place[came]] = known[came], marks[came]
        return known


def fingerprints(images: Tensor) -> Tensor:
    """Return a number of 64 bits for each image, shape (batch,): the same for equal images, for others as good as never."""
    bits = images.flatten(1).view(torch.int32).long()
    odd = torch.randint(-(2**62), 2**62, bits.shape[1:], generator=stream("cpu", "fingerprint")) * 2 + 1
    return (bits * odd.to(bits.device)).sum(1)


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
        for image, source in zip(batch, self.streams, strict=True):
            image.copy_(func(torch.empty_like(image, device="cpu"), *bounds, generator=source))
        return batch
