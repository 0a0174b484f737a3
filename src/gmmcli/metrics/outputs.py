"""One pass over images: all that the figures are made of."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gmmcli.core.batch import batch_size
from gmmcli.core.classifier import Classifier, frozen
from gmmcli.core.energy import log_density
from gmmcli.core.refinement import Refined
from gmmcli.data.dataset import Split, chunks
from gmmcli.distributed import divided, world
from gmmcli.errors import DivergedError
from gmmcli.types import Energies, Features, Logits, RawImages, to_model


class Outputs(NamedTuple):
    """What the model says of images; on the cpu, in the order of the images."""

    features: Features
    logits: Logits
    mass: Energies | None = None
    """``||d log p(x) / dx||_2``, where it was asked for."""


def outputs(
    model: Classifier, images: RawImages | Split, gamma2: float | None = None, progress: Callable[[int], None] = lambda _: None
) -> Outputs:
    """Take byte images through the model once, as many at a time as its device is quick with (``batch_size``).

    Of several processes each takes its share, and all return the whole.

    Args:
        model: the classifier; in evaluation mode and without parameter gradients meanwhile.
        images: the images.
        gamma2: the variance at which to take the gradient of log p(x) as well, one backward pass; None: forward only.
        progress: told how many images are done.

    Raises:
        DivergedError: logits that are not finite.
    """
    with frozen(model), torch.set_grad_enabled(gamma2 is not None):
        whole = Outputs(*divided(len(images), lambda mine: _of_share(model, images, mine, gamma2, progress)))
    broken = int((~whole.logits.isfinite().all(1)).sum())
    if broken:
        raise DivergedError(
            f"the model's logits are not finite for {broken} of {len(images)} images",
            "it has diverged: take an earlier checkpoint (--best), or train again with guard.on_divergence=rollback",
        )
    return whole


def _of_share(
    model: Classifier, images: RawImages | Split, mine: slice, gamma2: float | None, progress: Callable[[int], None]
) -> tuple[Tensor, ...]:
    """Features, logits and, at a variance, gradient norms of the images in a slice; processes are taken to be equally far."""
    device, parts, done = next(model.parameters()).device, [], 0
    # chains keep nothing from step to step, but all of an image run at once
    passed, chains = (model.plain, model.refinement.chains) if isinstance(model, Refined) else (model, 1)
    size = max(1, batch_size(passed, to_model(next(chunks(images, 1)).to(device))) // chains)
    for part in chunks(images, size, mine):
        x = to_model(part.to(device)).requires_grad_(gamma2 is not None)
        features = model.features(x)
        logits: Logits = model.head(features)
        found = [features, logits]
        if gamma2 is not None:
            (gradient,) = torch.autograd.grad(log_density(logits, gamma2).sum(), x)
            found.append(gradient.flatten(1).norm(dim=1))
        parts.append([tensor.detach().cpu() for tensor in found])
        done += len(part)
        progress(min(len(images), done * world().size))
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
