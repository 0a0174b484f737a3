"""The model as an attack sees it: one loss per image, only of the images that are still classified correctly."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gmmcli.attacks.losses import AttackLoss
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.types import Labels, Logits


class AllBroken(Exception):  # noqa: N818 - a signal, caught by who runs the attack
    """Every image of the batch is misclassified: the attack may stop."""


@dataclass
class AttackState:
    """The images that are attacked together, and what has become of them."""

    labels: Labels
    targets: Labels
    loss: AttackLoss
    scale: float
    unbroken: Tensor
    """Images that are still classified correctly; only they are computed further."""
    found: Tensor
    """The first misclassified image met on each one's way; the clean image where there was none."""
    dropping: bool = True
    """Leave broken images out."""
    forwards: int = 0
    gradients: int = 0
    zero_gradients: int = 0

    @classmethod
    def of(cls, pixels: Tensor, labels: Labels, targets: Labels, loss: AttackLoss, scale: float, dropping: bool = True) -> "AttackState":
        """The state before an attack."""
        return cls(labels, targets, loss, scale, torch.ones_like(labels, dtype=torch.bool), pixels.clone(), dropping)


class Adversary(nn.Module):
    """Wraps a model for one attack on one batch.

    Rows that are broken leave the computation: they get constant logits, hence no gradient, and their image is kept. The others pass
    the model as many at a time as its device is quick with, forward and backward, so that memory does not depend on the attack's batch.
    A row that is where it was at the call before, at a corner of its ball or without a gradient, does not pass again, unless the model
    draws its noise anew.

    Some attacks of torchattacks know only the mean cross-entropy of a batch, so with ``linear`` the output is ``(-l, 0)`` with ``l`` the
    loss of each image, which rises with its cross-entropy against class 0. Whatever they make of the output, the gradient that they
    get is that of the sum of ``l``: a factor 1 / N of the mean would push small gradients below what float32 holds, on their way
    through the network. Each image's gradient reaches the attack at unit size.
    """

    def __init__(self, model: PixelModel, state: AttackState, linear: bool) -> None:
        super().__init__()
        self.model = model
        self.state = state
        self.linear = linear
        self._before: list[Tensor] = []
        self._looks = 0
        self.eval()  # torchattacks puts back whatever mode it finds

    def forward(self, pixels: Tensor) -> Logits:
        """Return what the attack differentiates, one row an image; raises AllBroken when there is nothing left to do."""
        state = self.state
        rows = state.unbroken.nonzero().squeeze(1)
        if not len(rows):
            raise AllBroken
        logits, value, *gradients = self._passed(pixels, rows)
        if state.dropping:
            gone = rows[logits[rows].argmax(1) != state.labels[rows]]
            state.unbroken[gone] = False
            state.found[gone] = pixels.detach()[gone]
        if self.linear:
            output = torch.stack([-value, torch.zeros_like(value)], 1)
        else:
            elsewhere = nn.functional.one_hot((state.labels + 1) % logits.shape[1], logits.shape[1]).to(logits.dtype)
            output = elsewhere.index_copy(0, rows, logits[rows])
        return _Attached.apply(pixels, output, self._direction(*gradients)) if gradients else output  # type: ignore[no-untyped-call]

    def _passed(self, pixels: Tensor, rows: Tensor) -> list[Tensor]:
        """Return logits and loss of these rows, and the gradient of their loss where ``pixels`` requires one; 0 for the other rows."""
        differentiated = pixels.requires_grad and torch.is_grad_enabled()
        images = pixels.detach()
        self._looks += 1
        before = self._before if differentiated and not self.model.random else []
        moved = rows[(images[rows] != before[0][rows]).flatten(1).any(1)] if before else rows
        self.state.forwards += len(moved)
        if len(moved):
            parts = [self._pass(images[part], part, differentiated) for part in torch.split(moved, self.model.at_a_time(images))]
            columns = [torch.cat(column) for column in zip(*parts, strict=True)]
            before = before or [column.new_zeros(len(images), *column.shape[1:]) for column in columns]
            for whole, column in zip(before, columns, strict=True):
                whole[moved] = column
        if differentiated:
            self._before = before
        return before[1:]

    def _pass(self, images: Tensor, rows: Tensor, differentiated: bool) -> list[Tensor]:
        state = self.state

        def loss(logits: Logits) -> Tensor:
            return state.loss.value(logits / state.scale, state.labels[rows], state.targets[rows])

        return [images, *self.model.look(images, loss, differentiated, self._looks)]

    def _direction(self, gradient: Tensor) -> Tensor:
        """Count, and return each image's gradient at unit size: attacks want its direction, and theirs drown a tiny one in 1e-10."""
        largest = gradient.flatten(1).abs().amax(1)
        self.state.gradients += int(self.state.unbroken.sum())
        self.state.zero_gradients += int((largest[self.state.unbroken] == 0).sum())
        return gradient / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None, None, None]


class _Attached(torch.autograd.Function):
    """An output whose gradient with respect to the images is known already, whatever is made of the output."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
        """Return the output."""
        ctx.gradient = gradient
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient."""
        return ctx.gradient, None, None


def gradient(adversary: Adversary, pixels: Tensor) -> Tensor:
    """Return the direction in which each image's loss rises, scaled to a largest component of 1; 0 for images that are broken.

    Args:
        adversary: with ``linear``.
        pixels: images in [0, 1], shape (batch, channel, height, width).
    """
    pixels = pixels.detach().requires_grad_()
    return torch.autograd.grad(adversary(pixels).sum(), pixels)[0]
