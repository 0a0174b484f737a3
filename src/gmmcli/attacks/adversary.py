"""The model as an attack sees it: one loss per image, only of the images that are still classified correctly."""

from dataclasses import dataclass

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

    Rows that are broken leave the computation: they get constant logits, hence no gradient, and their image is kept. Some attacks
    of torchattacks know only the mean cross-entropy of a batch, so with ``linear`` the output is ``(-l, 0)`` with ``l`` the loss of
    each image, which rises with its cross-entropy against class 0, and the gradient that comes back to ``l`` is replaced by 1:
    that of the sum of ``l``. A factor 1 / N of the mean would push small gradients below what float32 holds, on their way
    through the network. Each image's gradient reaches the attack at unit size.
    """

    def __init__(self, model: PixelModel, state: AttackState, linear: bool) -> None:
        super().__init__()
        self.model = model
        self.state = state
        self.linear = linear
        self.eval()  # torchattacks puts back whatever mode it finds

    def forward(self, pixels: Tensor) -> Logits:
        """Return what the attack differentiates, one row an image; raises AllBroken when there is nothing left to do."""
        state = self.state
        rows = state.unbroken.nonzero().squeeze(1)
        if not len(rows):
            raise AllBroken
        state.forwards += len(rows)
        logits = self.model(pixels[rows])
        if state.dropping:
            gone = rows[logits.detach().argmax(1) != state.labels[rows]]
            state.unbroken[gone] = False
            state.found[gone] = pixels.detach()[gone]
        if pixels.requires_grad:
            kept = rows[state.unbroken[rows]]
            pixels.register_hook(lambda gradient: self._seen(gradient, kept))  # type: ignore[no-untyped-call]  # torch's own
        if self.linear:
            value = state.loss.value(logits / state.scale, state.labels[rows], state.targets[rows])
            if value.requires_grad:
                value.register_hook(torch.ones_like)  # type: ignore[no-untyped-call]  # torch's own
            output = torch.stack([-value, torch.zeros_like(value)], 1)
            return pixels.new_zeros(len(pixels), 2).to(output.dtype).index_put((rows,), output)
        elsewhere = nn.functional.one_hot((state.labels + 1) % logits.shape[1], logits.shape[1]).to(logits.dtype)
        return elsewhere.index_put((rows,), logits)

    def _seen(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Count, and return each image's gradient at unit size: attacks want its direction, and theirs drown a tiny one in 1e-10."""
        largest = gradient.flatten(1).abs().amax(1)
        self.state.gradients += len(rows)
        self.state.zero_gradients += int((largest[rows] == 0).sum())
        return gradient / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None, None, None]


def gradient(adversary: Adversary, pixels: Tensor) -> Tensor:
    """Return the direction in which each image's loss rises, scaled to a largest component of 1; 0 for images that are broken.

    Args:
        adversary: with ``linear``.
        pixels: images in [0, 1], shape (batch, channel, height, width).
    """
    pixels = pixels.detach().requires_grad_()
    return torch.autograd.grad(-adversary(pixels)[:, 0].sum(), pixels)[0]
