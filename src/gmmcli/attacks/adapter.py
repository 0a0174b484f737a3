"""torchattacks' algorithms on one batch: what they see of the model, and what must be kept from them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gmmcli.attacks.attack import Attack
from gmmcli.attacks.losses import AttackLoss
from gmmcli.attacks.pixel_model import PixelModel, pixel_logits
from gmmcli.types import Labels, Logits


class AllBroken(Exception):  # noqa: N818 - a signal, caught by who runs the attack
    """No image of the batch is classified rightly any more: the attack may stop."""


@dataclass
class Batch:
    """The images of one attack, and what has become of them."""

    labels: Labels
    targets: Labels
    loss: AttackLoss
    scale: float
    standing: Tensor
    """Images that no step has broken yet; only they are computed further."""
    found: Tensor
    """The first misclassified image met on each one's way, where there was one."""
    dropping: bool = True
    """Leave broken images out."""
    forwards: int = 0
    gradients: int = 0
    zero_gradients: int = 0

    @classmethod
    def of(cls, pixels: Tensor, labels: Labels, targets: Labels, loss: AttackLoss, scale: float, dropping: bool = True) -> "Batch":
        """A batch nobody has attacked yet."""
        return cls(labels, targets, loss, scale, torch.ones_like(labels, dtype=torch.bool), pixels.clone(), dropping)


class Adversary(nn.Module):
    """Wraps a model for one torchattacks attack on one batch.

    Rows that are broken leave the computation: they get constant logits, hence no gradient, and their image is kept. Some attacks
    of torchattacks know only the mean cross-entropy of a batch, so with ``linear`` the output is ``(-l, 0)`` with ``l`` the loss of
    each image, which rises with its cross-entropy against class 0, and the gradient that comes back to ``l`` is replaced by 1:
    that of the sum of ``l``. A factor 1 / N of the mean would push small gradients below what float32 holds, on their way
    through the network. Each image's gradient reaches the attack at unit size.
    """

    def __init__(self, model: PixelModel, batch: Batch, linear: bool) -> None:
        super().__init__()
        self.model = model
        self.batch = batch
        self.linear = linear
        self.eval()  # torchattacks puts back whatever mode it finds

    def forward(self, pixels: Tensor) -> Logits:
        """Return what the attack differentiates, one row an image; raises AllBroken when there is nothing left to do."""
        batch = self.batch
        rows = batch.standing.nonzero().squeeze(1)
        if not len(rows):
            raise AllBroken
        batch.forwards += len(rows)
        logits = self.model(pixels[rows])
        if batch.dropping:
            gone = rows[logits.detach().argmax(1) != batch.labels[rows]]
            batch.standing[gone] = False
            batch.found[gone] = pixels.detach()[gone]
        if pixels.requires_grad:
            kept = rows[batch.standing[rows]]
            pixels.register_hook(lambda gradient: self._seen(gradient, kept))  # type: ignore[no-untyped-call]  # torch's own
        if self.linear:
            value = batch.loss.value(logits / batch.scale, batch.labels[rows], batch.targets[rows])
            if value.requires_grad:
                value.register_hook(torch.ones_like)  # type: ignore[no-untyped-call]  # torch's own
            output = torch.stack([-value, torch.zeros_like(value)], 1)
            return pixels.new_zeros(len(pixels), 2).to(output.dtype).index_put((rows,), output)
        elsewhere = nn.functional.one_hot((batch.labels + 1) % logits.shape[1], logits.shape[1]).to(logits.dtype)
        return elsewhere.index_put((rows,), logits)

    def _seen(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Count, and return each image's gradient at unit size: attacks want its direction, and theirs drown a tiny one in 1e-10."""
        largest = gradient.flatten(1).abs().amax(1)
        self.batch.gradients += len(rows)
        self.batch.zero_gradients += int((largest[rows] == 0).sum())
        return gradient / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None, None, None]


def run_on_batch(attack: Attack, model: PixelModel, batch: Batch, pixels: Tensor, eps: float, streams: Sequence[torch.Generator]) -> None:
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


class _Counting(nn.Module):
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
