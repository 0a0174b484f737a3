"""One pass over images: all that the figures are made of."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from gmmcli.core.batch import batch_size
from gmmcli.core.classifier import Classifier, frozen
from gmmcli.core.energy import log_density
from gmmcli.data.dataset import Split, chunks
from gmmcli.errors import DivergedError
from gmmcli.types import Energies, Features, Logits, RawImages, to_model


class Outputs(NamedTuple):
    """What the model says of images; on the cpu, in the order of the images."""

    features: Features
    logits: Logits
    mass: Energies | None
    """``||d log p(x) / dx||_2``, where it was asked for."""


def outputs(
    model: Classifier, images: RawImages | Split, gamma2: float | None = None, progress: Callable[[int], None] = lambda _: None
) -> Outputs:
    """Take byte images through the model once, as many at a time as its device is quick with (``batch_size``).

    Args:
        model: the classifier; in evaluation mode and without parameter gradients meanwhile.
        images: the images.
        gamma2: the variance at which to take the gradient of log p(x) as well, one backward pass; None: forward only.
        progress: told how many images are done.

    Raises:
        DivergedError: logits that are not finite.
    """
    device = next(model.parameters()).device
    parts = []
    with frozen(model), torch.set_grad_enabled(gamma2 is not None):
        size = batch_size(model, to_model(next(chunks(images, 1)).to(device)))
        for part in chunks(images, size):
            x = to_model(part.to(device)).requires_grad_(gamma2 is not None)
            features = model.features(x)
            logits: Logits = model.head(features)
            mass = None
            if gamma2 is not None:
                (gradient,) = torch.autograd.grad(log_density(logits, gamma2).sum(), x)
                mass = gradient.flatten(1).norm(dim=1).cpu()
            parts.append(Outputs(features.detach().cpu(), logits.detach().cpu(), mass))
            progress(min(len(images), size * len(parts)))
    all_features, all_logits, masses = zip(*parts, strict=True)
    whole = Outputs(torch.cat(all_features), torch.cat(all_logits), torch.cat(masses) if gamma2 is not None else None)
    broken = int((~whole.logits.isfinite().all(1)).sum())
    if broken:
        raise DivergedError(
            f"the model's logits are not finite for {broken} of {len(images)} images",
            "it has diverged: take an earlier checkpoint (--best), or train again with guard.on_divergence=rollback",
        )
    return whole
