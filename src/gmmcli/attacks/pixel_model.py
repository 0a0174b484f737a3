"""The model as attacks see it: logits of pixels in [0, 1]."""

import torch
from torch import Tensor, nn

from gmmcli.attacks.attack import Norm
from gmmcli.core.classifier import Classifier
from gmmcli.errors import DivergedError
from gmmcli.types import Logits

CHUNK = 250


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


@torch.no_grad()
def pixel_logits(model: PixelModel, pixels: Tensor) -> Logits:
    """Return the logits of images in [0, 1], a chunk at a time; DivergedError where they are not finite."""
    logits = torch.cat([model(part) for part in torch.split(pixels, CHUNK)])
    if not bool(logits.isfinite().all()):
        raise DivergedError(
            "the model's logits are not finite: there is nothing to attack", "it has diverged: take an earlier checkpoint (--best)"
        )
    return logits


def distances(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Return the distance of each image to its counterpart."""
    difference = (a - b).flatten(1)
    return difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
