"""The exponential moving average of a model's weights."""

from copy import deepcopy

import torch

from gmmcli.core.classifier import Classifier
from gmmcli.types import Flag


def averaging(model: Classifier) -> Classifier:
    """Begin an average: a copy of the model as it stands, in evaluation mode, that needs no gradients."""
    return deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def average_in(average: Classifier, model: Classifier, decay: float, n_updates: int, healthy: Flag) -> None:
    """Move an average towards the model: ``d average + (1 - d) model`` with ``d = min(decay, (1 + n) / (10 + n))``.

    The smaller share at first, of TensorFlow's ``ExponentialMovingAverage``, soon forgets the weights that the average began with.

    Args:
        average: a model of ``averaging``. Weights and floating-point buffers are averaged, integers taken over.
        model: what the optimiser moved.
        decay: the share that the average keeps of itself in the long run.
        n_updates: how often it was moved before.
        healthy: nothing moves where this is false, as the weights themselves do not; asked on the device.
    """
    share = 1 - min(decay, (1 + n_updates) / (10 + n_updates))
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        moved = torch.lerp(mine, theirs, share) if mine.is_floating_point() else theirs
        mine.copy_(torch.where(healthy, moved, mine))
