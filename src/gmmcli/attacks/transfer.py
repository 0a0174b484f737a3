"""What an attack on one model does to another."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gmmcli.attacks.attack import Attack, Norm
from gmmcli.attacks.pixel_model import PixelModel, distances, pixel_logits
from gmmcli.attacks.within_ball import common_logits, over_eps
from gmmcli.core.classifier import frozen
from gmmcli.types import Labels


def transfer_over_eps(
    attack: Attack,
    surrogate: PixelModel,
    model: PixelModel,
    pixels: Tensor,
    labels: Labels,
    eps: Sequence[float],
    progress: Callable[[float, int, int], None] = lambda eps, done, unbroken: None,
) -> tuple[Tensor, Tensor]:
    """Attack a surrogate throughout, which is what transfers best, at growing radii, and show the model what came of it.

    Returns:
        The radius at which each image fell (inf: at none; 0: misclassified from the start), and its adversarial image.
    """
    fell = torch.where(common_logits(model, pixels).argmax(1) == labels, float("inf"), 0.0).double()
    adversarial = pixels.clone()
    with frozen(surrogate):
        for radius in sorted(eps):
            rows = ((fell == float("inf")) & (common_logits(surrogate, pixels).argmax(1) == labels)).nonzero().squeeze(1)
            _, found, _ = over_eps(replace(attack, throughout=True), surrogate, pixels[rows], labels[rows], [radius])
            broken = transferred(model, found, pixels[rows], labels[rows], radius, attack.norm)
            fell[rows[broken]], adversarial[rows[broken]] = radius, found[broken]
            progress(radius, len(labels), int((fell == float("inf")).sum()))
    return fell, adversarial


def transferred(model: PixelModel, adversarial: Tensor, pixels: Tensor, labels: Labels, eps: float, norm: Norm = "linf") -> Tensor:
    """Return which images fall to what was made for another model, within the ball."""
    assert bool((distances(adversarial, pixels, norm) <= eps + 1e-5).all())
    return pixel_logits(model, adversarial).argmax(1) != labels
