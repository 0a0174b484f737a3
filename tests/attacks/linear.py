"""Linear models, whose distance to the decision boundary is known in closed form, and images to attack them with."""

import torch
from torch import Tensor, nn

from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.core.classifier import Classifier

SIDE = 8
BLOCK = 16  # pixels a class of blocks(): a quarter of an image


def linear(weight: Tensor, bias: Tensor | None = None) -> PixelModel:
    """Logits ``W x + b`` of the flattened image, x in the model range."""
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return PixelModel(Classifier(nn.Flatten(), layer).eval().requires_grad_(False))


def blocks(n_classes: int, scale: float = 1.0, shift: float = 0.0) -> PixelModel:
    """Class k's logit is the brightness of the k-th quarter of the image; all logits may be shifted."""
    weight = torch.zeros(n_classes, SIDE * SIDE)
    for k in range(n_classes):
        weight[k, k * BLOCK : (k + 1) * BLOCK] = scale
    return linear(weight, torch.full((n_classes,), shift))


def block_images(n_classes: int, gaps: tuple[float, ...] = (0.06, 0.06, 0.12, 0.12)) -> tuple[Tensor, Tensor]:
    """Grey images with labels, so much brighter in the block of their class than in that of the next; others are far off.

    No pixel is so near to 0 or 1 that an attack within the distance to the boundary would meet the edge of the range. With blocks()
    that distance is half the gap in the linf norm.
    """
    labels = torch.arange(len(gaps)) % n_classes
    pixels = torch.full((len(gaps), SIDE * SIDE), 0.2)
    for image, label, gap in zip(pixels, labels.tolist(), gaps, strict=True):
        second = (label + 1) % n_classes
        image[second * BLOCK : (second + 1) * BLOCK] = 0.5
        image[label * BLOCK : (label + 1) * BLOCK] = 0.5 + gap
    texture = torch.linspace(-0.01, 0.01, BLOCK).repeat(SIDE * SIDE // BLOCK)
    return (pixels + texture).view(-1, 1, SIDE, SIDE), labels


def radii(model: PixelModel, pixels: Tensor, labels: Tensor, norm: str) -> Tensor:
    """The distance of each image to the nearest other class, by the dual norm: ``min_k (z_y - z_k) / (2 ||w_y - w_k||_*)``."""
    weight = model.model.head.get_parameter("weight").double()
    logits = model(pixels).double()
    own = torch.arange(len(labels))
    gaps = logits[own, labels][:, None] - logits
    slopes = 2 * (weight[labels][:, None] - weight).norm(p=1 if norm == "linf" else 2, dim=2)
    return gaps.div(slopes).scatter(1, labels[:, None], float("inf")).amin(1)


def tangled(n_classes: int, seed: int = 0, n: int = 12) -> tuple[PixelModel, Tensor, Tensor]:
    """A small network with kinks, images with pixels of exactly 0 and 1 among others, and what it takes them for."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 16), nn.Tanh())
        model = PixelModel(Classifier(features, nn.Linear(16, n_classes)).eval().requires_grad_(False))
        pixels = (torch.rand(n, 1, SIDE, SIDE) * 1.6 - 0.3).clamp(0, 1)
    return model, pixels, model(pixels).argmax(1)
