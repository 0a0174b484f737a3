"""Where chains set out: noise, or draws from Gaussians fitted to the training images."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gmmcli.core import protocols
from gmmcli.registry import Registry
from gmmcli.types import Count, Images, Labels, RawImages, to_model

OVERSAMPLED, POWER_ITERATIONS = 20, 4
"""Of the randomised SVD (Halko, Martinsson and Tropp 2011): extra directions, and passes that sharpen the spectrum."""


@dataclass(frozen=True)
class UniformStarts:
    """Every pixel from U(-1, 1)."""

    shape: tuple[int, ...]

    def __call__(self, labels: Labels, generator: torch.Generator) -> Images:
        """Draw one image per label; all labels are alike."""
        return torch.rand(len(labels), *self.shape, generator=generator, device=generator.device).mul_(2).sub_(1)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class GaussianStarts:
    """One Gaussian for each class, ``mean_y + components_y^T n`` with n standard normal, clamped to the model range."""

    shape: tuple[int, ...]
    mean: Tensor
    """Shape (class, pixel)."""
    components: Tensor
    """Principal components, each as long as its standard deviation, shape (class, component, pixel)."""

    def __call__(self, labels: Labels, generator: torch.Generator) -> Images:
        """Draw one image per label, from its class; with one Gaussian, all labels are alike."""
        n_classes, rank = self.components.shape[:2]
        places = labels if n_classes > 1 else torch.zeros_like(labels)
        # a matrix with a block for each class: one product, where gathering components would copy megabytes for every image
        coefficients = torch.zeros(len(labels), n_classes, rank, device=generator.device)
        position = torch.arange(len(labels), device=generator.device)
        coefficients[position, places] = torch.randn(len(labels), rank, generator=generator, device=generator.device)
        pixels = self.mean[places].addmm(coefficients.flatten(1), self.components.flatten(0, 1))
        return pixels.clamp_(-1, 1).view(-1, *self.shape)

    def tensors(self) -> dict[str, Tensor]:
        """Means and components."""
        return {"mean": self.mean, "components": self.components}


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Chains start from U(-1, 1), the paper's and JEM's way."""

    kind: Literal["uniform"] = "uniform"

    def fit(self, images: RawImages, labels: Labels, n_classes: int, seed: int) -> UniformStarts:
        """Nothing is fitted but the images' shape."""
        return UniformStarts(tuple(images.shape[1:]))

    def restored(self, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> UniformStarts:
        """The images' shape is all there is."""
        return UniformStarts(shape)


class _Fitted:
    """What the Gaussian starts share."""

    def restored(self, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> GaussianStarts:
        """The Gaussians as they were fitted."""
        return GaussianStarts(shape, tensors["mean"], tensors["components"])


@dataclass(frozen=True, kw_only=True)
class Gaussian(_Fitted):
    """Chains start from the Gaussian of the training images, all classes together, as M-EBM has it (Yang et al. 2023)."""

    kind: Literal["gaussian"] = "gaussian"
    rank: Count = 256
    """Principal components kept; the variance along the others is left out."""

    def fit(self, images: RawImages, labels: Labels, n_classes: int, seed: int) -> GaussianStarts:
        """Fit one Gaussian to all images."""
        return _fit([images], self.rank, seed)


@dataclass(frozen=True, kw_only=True)
class ClassGaussian(_Fitted):
    """Chains start from the Gaussian of their class's training images, JEM++'s informative initialisation (Yang and Ji 2021).

    JEM++ adds 1e-4 to every variance and keeps all components.
    """

    kind: Literal["class-gaussian"] = "class-gaussian"
    rank: Count = 256
    """Principal components kept of each class; the variance along the others is left out."""

    def fit(self, images: RawImages, labels: Labels, n_classes: int, seed: int) -> GaussianStarts:
        """Fit one Gaussian to the images of each class."""
        return _fit([images[labels == k] for k in range(n_classes)], self.rank, seed)


STARTS: Registry[type[protocols.Start]] = Registry("starts", {"uniform": Uniform, "gaussian": Gaussian, "class-gaussian": ClassGaussian})


def _fit(groups: list[Tensor], rank: int, seed: int) -> GaussianStarts:
    """Fit means and leading principal components by a randomised SVD of the centred images, without a pixel x pixel matrix."""
    shape = tuple(groups[0].shape[1:])
    rank = min(rank, shape[0] * shape[1] * shape[2])
    generator = torch.Generator(groups[0].device).manual_seed(seed)
    means, components = [], []
    for images in groups:
        pixels = to_model(images).flatten(1)
        mean = pixels.mean(0)
        sketch = min(rank + OVERSAMPLED, *pixels.shape)
        scales, directions = _singular(pixels - mean, sketch, generator)
        deviations = (scales / len(pixels) ** 0.5)[:, None] * directions
        kept = torch.zeros(rank, pixels.shape[1], device=pixels.device)  # a small class has fewer components: the others are 0
        kept[: min(rank, sketch)] = deviations[:rank]
        means.append(mean)
        components.append(kept)
    return GaussianStarts(shape, torch.stack(means), torch.stack(components))


def _singular(matrix: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the ``n`` leading singular values of a matrix (row, column) and their right singular vectors, shape (n, column).

    The algorithm of ``torch.svd_lowrank``, which would draw its sketch from torch's global generator.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if wide else matrix
    basis = torch.linalg.qr(tall @ torch.randn(tall.shape[1], n, generator=generator, device=matrix.device)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(tall @ torch.linalg.qr(tall.T @ basis).Q).Q
    left, scales, right = torch.linalg.svd(basis.T @ tall, full_matrices=False)
    return scales, (basis @ left).T if wide else right
