"""Chains that keep to an image, against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

from gmmcli.core.classifier import Classifier
from gmmcli.core.conditioned import Between, Denoising, Inpainting, StartsNear
from gmmcli.core.starts import GaussianStarts
from gmmcli.core.targets import Conditional, Marginal, StagedLatent

SHAPE = (1, 2, 3)


@pytest.fixture
def model() -> Classifier:
    """Logits that are linear in the pixels: the gradient of E(x, y) is minus a row of weights."""
    head = nn.Linear(6, 4)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    return Classifier(nn.Flatten(), head)


def gradient(energy: object, images: torch.Tensor) -> torch.Tensor:
    images = images.clone().requires_grad_()
    return torch.autograd.grad(energy(images).sum(), images)[0]  # type: ignore[operator]


def test_known_pixels_are_put_in_place_and_have_no_gradient(model: Classifier, generator: torch.Generator) -> None:
    image, known = torch.rand(1, *SHAPE, generator=generator), torch.tensor([[[[True, False, True], [False, False, True]]]])
    target, labels, images = Inpainting(Conditional(), image, known), torch.tensor([0, 3]), torch.rand(2, *SHAPE, generator=generator)
    energy = target(model, labels, generator)
    torch.testing.assert_close(energy(images), Conditional()(model, labels, generator)(torch.where(known, image, images)))
    weights = model.head.weight[labels].reshape(2, *SHAPE)  # type: ignore[union-attr, index]
    torch.testing.assert_close(gradient(energy, images), torch.where(known, 0.0, -weights.detach()))
    assert torch.equal(target.clamp(images)[:, :, known[0, 0]], image[:, :, known[0, 0]].expand(2, -1, -1))


def test_the_posterior_pulls_towards_the_noisy_image(model: Classifier, generator: torch.Generator) -> None:
    image, images = torch.rand(1, *SHAPE, generator=generator), torch.rand(2, *SHAPE, generator=generator)
    labels = torch.tensor([1, 2])
    energy = Denoising(Conditional(), image, gamma2=0.3, sigma=0.2)(model, labels, generator)
    weights = model.head.weight[labels].reshape(2, *SHAPE).detach()  # type: ignore[union-attr, index]
    torch.testing.assert_close(gradient(energy, images), 0.3 / 0.2**2 * (images - image) - weights)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_between_two_classes_energies_mix(model: Classifier, generator: torch.Generator, share: float) -> None:
    images, labels = torch.rand(2, *SHAPE, generator=generator), torch.tensor([0, 1])
    found = Between(Conditional(), 3, share)(model, labels, generator)(images)
    logits = model(images)
    torch.testing.assert_close(found, -(1 - share) * logits[[0, 1], labels] - share * logits[:, 3])


def test_targets_keep_what_the_one_below_needs() -> None:
    image, known = torch.zeros(1, *SHAPE), torch.ones(1, 1, 2, 3, dtype=torch.bool)
    for of in (StagedLatent(), Marginal()):
        found = Inpainting(of, image, known)
        assert (found.kind, found.needs_means, found.uses_labels) == (of.kind, of.needs_means, of.uses_labels)


KNOWN = torch.tensor([[[[True, False, True], [False, False, True]]]])


def conditional(starts: GaussianStarts, image: torch.Tensor, label: int, noise_std: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all pixels given the known ones: the textbook's block formula, with a pixel x pixel covariance."""
    mean, components = starts.mean[label].double().numpy(), starts.components[label].double().numpy()
    covariance, k = components.T @ components, KNOWN.flatten().numpy()
    gain = covariance[:, k] @ np.linalg.inv(covariance[np.ix_(k, k)] + noise_std**2 * np.eye(k.sum()))
    return mean + gain @ (image.flatten().double().numpy()[k] - mean[k]), covariance - gain @ covariance[k]


@pytest.fixture
def starts(generator: torch.Generator) -> GaussianStarts:
    """Two Gaussians of three components, well within the model range."""
    return GaussianStarts(SHAPE, 0.1 * torch.randn(2, 6, generator=generator), 0.1 * torch.randn(2, 3, 6, generator=generator))


@pytest.mark.parametrize("label", [0, 1])
def test_the_gaussian_given_known_pixels_is_that_of_the_block_formula(
    starts: GaussianStarts, generator: torch.Generator, label: int
) -> None:
    image = 0.2 * torch.randn(1, *SHAPE, generator=generator)
    near = StartsNear(starts, image, KNOWN, noise_std=0.05)
    mean, covariance = conditional(starts, image, label, 0.05)
    np.testing.assert_allclose(near.mean(label).flatten(), mean, atol=1e-5)
    drawn = near(torch.full((20_000,), label), generator).flatten(1).double().numpy()
    np.testing.assert_allclose(drawn.mean(0), mean, atol=3e-3)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=6e-4)


def test_it_is_the_image_where_there_is_no_noise_and_the_components_hold_it(starts: GaussianStarts) -> None:
    held = (starts.mean[0] + torch.tensor([1.0, -0.5, 0.3]) @ starts.components[0]).view(1, *SHAPE)
    near = StartsNear(starts, held, torch.ones(1, 1, 2, 3, dtype=torch.bool), noise_std=1e-3)
    torch.testing.assert_close(near.mean(0), held, atol=1e-3, rtol=0)
    assert (near.shape, near.tensors().keys()) == (SHAPE, {"mean", "components"})


def test_one_gaussian_serves_all_labels(generator: torch.Generator) -> None:
    one = GaussianStarts(SHAPE, torch.zeros(1, 6), 0.1 * torch.randn(1, 3, 6, generator=generator))
    near = StartsNear(one, torch.zeros(1, *SHAPE), KNOWN)
    assert torch.equal(near.mean(7), near.mean(0))
