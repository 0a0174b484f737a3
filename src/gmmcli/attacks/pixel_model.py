"""The model as attacks see it: logits of pixels in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmmcli.attacks.attack import Norm
from gmmcli.core.batch import LEAST, batch_size
from gmmcli.core.classifier import Classifier
from gmmcli.errors import DivergedError
from gmmcli.types import Logits

EVEN = 8
"""Larger batches are filled up to a multiple of this: attacks leave any number of images, and libraries prepare anew for each size."""


class PixelModel(nn.Module):
    """Unscaled logits of images in the unit range: the only place where pixels become the model range [-1, 1]."""

    random = False
    """Whether the gradient of the same images differs from look to look."""

    def __init__(self, model: Classifier, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.scale = scale
        self._at_a_time: int | None = None

    def forward(self, pixels: Tensor) -> Logits:
        """Return logits / scale, shape (batch, class)."""
        n = len(pixels)
        size = n + -n % EVEN if n > EVEN else max(n, LEAST)  # products of fewer rows round otherwise: an image would depend on its company
        filled = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, size - n))
        logits: Logits = self.model(filled.to(self.dtype) * 2 - 1)[:n]
        return logits / self.scale

    def look(self, pixels: Tensor, loss: Callable[[Logits], Tensor], differentiated: bool, number: int) -> list[Tensor]:
        """Return the logits, each image's loss and, where it is to be differentiated, the gradient of that; none of them with a graph.

        Args:
            pixels: images in [0, 1].
            loss: of logits, one value an image.
            differentiated: whether the gradient is wanted.
            number: which look of an attack this is; a model with noise draws it by that.
        """
        x = pixels.clone().requires_grad_(differentiated)
        logits = self(x)
        value = loss(logits)
        gradients = torch.autograd.grad(value.sum(), x) if differentiated else ()
        return [logits.detach(), value.detach(), *gradients]

    def at_a_time(self, pixels: Tensor) -> int:
        """Return how many images to pass at a time (``batch_size``), found out once."""
        if self._at_a_time is None:
            self._at_a_time = batch_size(self.model, pixels[:0].to(self.dtype))
        return self._at_a_time


@torch.no_grad()
def pixel_logits(model: PixelModel, pixels: Tensor) -> Logits:
    """Return the logits of images in [0, 1], a batch at a time; DivergedError where they are not finite."""
    logits = torch.cat([model(part) for part in torch.split(pixels, model.at_a_time(pixels))])
    if not bool(logits.isfinite().all()):
        raise DivergedError(
            "the model's logits are not finite: there is nothing to attack", "it has diverged: take an earlier checkpoint (--best)"
        )
    return logits


def distances(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Return the distance of each image to its counterpart."""
    difference = (a - b).flatten(1)
    return difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
