"""The model as an attack sees it: pixels in [0, 1] in, and out what the attack shall climb."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmmcli.attacks.losses import AttackLoss
from gmmcli.core.classifier import Classifier
from gmmcli.types import Labels, Logits


class AllBroken(Exception):  # noqa: N818 - a signal, caught by who runs the attack
    """No image of the batch is classified rightly any more: the attack may stop."""


class PixelModel(nn.Module):
    """Unscaled logits of images in the unit range: the only place where pixels become the model range [-1, 1]."""

    def __init__(self, model: Classifier, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.scale = scale

    def forward(self, pixels: Tensor) -> Logits:
        """Return logits / scale, shape (batch, class)."""
        logits: Logits = self.model(pixels.to(self.dtype) * 2 - 1)
        return logits / self.scale


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
