"""Chains that keep to an image: to its known pixels, or to it but for noise; and chains between two classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gmmcli.core import protocols
from gmmcli.core.classifier import Classifier
from gmmcli.core.starts import GaussianStarts
from gmmcli.types import Energies, EnergyFn, Images, Labels, Mask


@dataclass(frozen=True)
class Wrapper:
    """What targets on top of another one share with it."""

    of: protocols.Target

    @property
    def kind(self) -> str:
        """Of the target below."""
        return self.of.kind

    @property
    def needs_means(self) -> bool:
        """Of the target below."""
        return self.of.needs_means

    @property
    def uses_labels(self) -> bool:
        """Of the target below."""
        return self.of.uses_labels


@dataclass(frozen=True)
class Inpainting(Wrapper):
    """The energy of images in which the known pixels are those of one image, shape (1, channel, height, width).

    Its gradient at these is 0, so that chains descend ``E(x | x_known)`` in the others (inpainting by clamped chains, Du and Mordatch 2019,
    Sec. 4.2).
    """

    image: Images
    known: Mask

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return the energy, for one image per label."""
        energy = self.of(model, labels, generator)

        def clamped(images: Images) -> Energies:
            return energy(self.clamp(images))

        return clamped

    def clamp(self, images: Images) -> Images:
        """Return the images with the known pixels in their places."""
        return torch.where(self.known, self.image, images)


@dataclass(frozen=True)
class StartsNear:
    """The Gaussians of other starts, given some pixels of an image but for noise: a linear regression onto their components.

    ``x = mean + components^T z + noise`` with z standard normal; z given the known x is normal again.
    """

    of: GaussianStarts
    image: Images
    """Shape (1, channel, height, width)."""
    known: Mask
    noise_std: float = 0.1
    """In the model range; by default about what the components leave out of an image."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width)."""
        return self.of.shape

    def tensors(self) -> dict[str, Tensor]:
        """Those of the Gaussians."""
        return self.of.tensors()

    def __call__(self, labels: Labels, generator: torch.Generator) -> Images:
        """Draw one image per label."""
        noise = torch.randn(len(labels), self.of.components.shape[1], generator=generator, device=labels.device)
        images = torch.empty(len(labels), *self.shape, device=labels.device)
        for k in sorted(set(labels.tolist())):
            images[labels == k] = self._images(k, noise[labels == k])
        return images

    def mean(self, label: int) -> Images:
        """The most probable image, shape (1, channel, height, width): of an image known with noise, Wiener's filter of it."""
        return self._images(label, self.of.components.new_zeros(1, self.of.components.shape[1]))

    def _images(self, label: int, noise: Tensor) -> Images:
        """The images for standard normal draws, shape (n, component)."""
        known = self.known.expand(1, *self.shape).flatten()
        mean, components = (part[label if len(part) > 1 else 0] for part in (self.of.mean, self.of.components))
        seen = components[:, known] / self.noise_std
        root = torch.linalg.cholesky(torch.eye(len(seen), device=seen.device) + seen @ seen.T)  # of the precision of z
        centre = torch.cholesky_solve(seen @ (self.image.flatten()[known] - mean[known])[:, None] / self.noise_std, root)
        z = centre + torch.linalg.solve_triangular(root.T, noise.T, upper=True)
        pixels: Tensor = mean + z.T @ components
        return pixels.clamp(-1, 1).view(-1, *self.shape)


@dataclass(frozen=True)
class Denoising(Wrapper):
    """``E(x, .) + gamma^2 / (2 sigma^2) ||x - y||^2``: gamma^2 times ``-log p(x | y)`` of an image y = x + N(0, sigma^2)."""

    image: Images
    gamma2: float
    sigma: float
    """In the model range [-1, 1]."""

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return the energy, for one image per label."""
        energy = self.of(model, labels, generator)

        def posterior(images: Images) -> Energies:
            return energy(images) + self.gamma2 / (2 * self.sigma**2) * (images - self.image).square().sum((1, 2, 3))

        return posterior


@dataclass(frozen=True)
class Between(Wrapper):
    """``(1 - share) E(x, y) + share E(x, other)``: a place on the way from the chains' own class to another."""

    other: int
    share: float

    def __call__(self, model: Classifier, labels: Labels, generator: torch.Generator) -> EnergyFn:
        """Return the energy, for one image per label."""
        here = self.of(model, labels, generator)
        there = self.of(model, torch.full_like(labels, self.other), generator)

        def mixed(images: Images) -> Energies:
            return (1 - self.share) * here(images) + self.share * there(images)

        return mixed
