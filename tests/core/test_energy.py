import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.special import log_softmax, logsumexp

from gmmcli.core.energy import (
    class_log_probs,
    joint_energy,
    latent_energy,
    log_density,
    marginal_energy,
    shared_variance,
    squared_distances,
)
from gmmcli.core.means import max_mahalanobis_means

LABELS = torch.tensor([0, 3, 2, 2, 1, 0])


@pytest.fixture
def means() -> torch.Tensor:
    return max_mahalanobis_means(4, 7, 10.0)


@pytest.fixture
def features(generator: torch.Generator) -> torch.Tensor:
    return 5 * torch.randn(6, 7, generator=generator)


@pytest.fixture
def logits(features: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    return -squared_distances(features, means) / 2


def test_squared_distances_are_the_explicit_ones(features: torch.Tensor, means: torch.Tensor) -> None:
    expected = [[sum((p - m) ** 2 for p, m in zip(phi, mu, strict=True)) for mu in means.tolist()] for phi in features.tolist()]
    torch.testing.assert_close(squared_distances(features.double(), means.double()), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(squared_distances(features, means).double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_tiny_distances_keep_their_digits_in_float32(generator: torch.Generator) -> None:
    means = max_mahalanobis_means(40, 64, 100.0)
    features = means + 1e-3 * torch.randn(40, 64, generator=generator)
    exact = squared_distances(features.double(), means.double()).diagonal()
    torch.testing.assert_close(squared_distances(features, means).diagonal().double(), exact, rtol=1e-6, atol=0)


def test_gradients_at_a_mean_are_finite_and_zero_for_its_own_energy(means: torch.Tensor) -> None:
    features = means.clone().requires_grad_()
    logits = -squared_distances(features, means) / 2
    (own,) = torch.autograd.grad(joint_energy(logits, torch.arange(4)).sum(), features, retain_graph=True)
    assert torch.equal(own, torch.zeros_like(own))
    for energies in (marginal_energy(logits), log_density(logits, 1e-3), class_log_probs(logits, 1e-3).sum(1)):
        (gradient,) = torch.autograd.grad(energies.sum(), features, retain_graph=True)
        assert gradient.isfinite().all()


def test_joint_energy_is_half_the_squared_distance_to_the_labels_mean(
    features: torch.Tensor, means: torch.Tensor, logits: torch.Tensor
) -> None:
    torch.testing.assert_close(joint_energy(logits, LABELS), (features - means[LABELS]).norm(dim=1) ** 2 / 2)
    torch.testing.assert_close(latent_energy(features, means[LABELS]), joint_energy(logits, LABELS))


def test_joint_energy_gradient_points_away_from_the_mean(features: torch.Tensor, means: torch.Tensor) -> None:
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(joint_energy(-squared_distances(features, means) / 2, LABELS).sum(), features)
    torch.testing.assert_close(gradient, features.detach() - means[LABELS])


def test_marginal_energy_sums_the_label_out(logits: torch.Tensor) -> None:
    every_joint = torch.stack([joint_energy(logits.double(), torch.full((6,), k)) for k in range(4)])
    torch.testing.assert_close(torch.exp(-marginal_energy(logits.double())), torch.exp(-every_joint).sum(0))


def test_conditional_joint_and_marginal_agree(logits: torch.Tensor) -> None:
    """``log p(y|x) = log p(x, y) - log p(x)``, for any head."""
    conditional = class_log_probs(logits, 1.0).gather(1, LABELS[:, None]).squeeze(1)
    torch.testing.assert_close(conditional, marginal_energy(logits) - joint_energy(logits, LABELS), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_density(logits, 1.0), -marginal_energy(logits))


@pytest.mark.parametrize("gamma2", [0.01, 0.5, 1.0, 30.0])
def test_density_and_class_probabilities_match_scipy(features: torch.Tensor, means: torch.Tensor, gamma2: float) -> None:
    exact = -((features.double()[:, None] - means.double()) ** 2).sum(2).numpy() / (2 * gamma2)
    logits = -squared_distances(features, means) / 2
    np.testing.assert_allclose(log_density(logits, gamma2), logsumexp(exact, axis=1), rtol=1e-5)
    np.testing.assert_allclose(class_log_probs(logits, gamma2), log_softmax(exact, axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(class_log_probs(logits, gamma2).exp().sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("distance2", [208.0, 1e4, 1e8])
def test_density_far_from_every_mean_stays_finite(distance2: float) -> None:
    density = log_density(torch.full((1, 10), -distance2 / 2), 1.0)
    assert math.isclose(float(density), -distance2 / 2 + math.log(10), rel_tol=1e-6)


def test_shared_variance_is_the_mean_squared_distance_per_feature(
    features: torch.Tensor, means: torch.Tensor, logits: torch.Tensor
) -> None:
    expected = (features.double() - means[LABELS].double()).square().sum() / (6 * 7)
    gamma2 = shared_variance(joint_energy(logits, LABELS), 7)
    assert math.isclose(float(gamma2), float(expected), rel_tol=1e-6)


@pytest.mark.parametrize("gamma2", [1e-4, 0.7, 25.0])
def test_shared_variance_recovers_that_of_simulated_gaussians(gamma2: float, generator: torch.Generator) -> None:
    n, dim = 5000, 16
    means = max_mahalanobis_means(5, dim, 10.0)
    labels = torch.randint(5, (n,), generator=generator)
    features = means[labels] + math.sqrt(gamma2) * torch.randn(n, dim, generator=generator)
    found = float(shared_variance(joint_energy(-squared_distances(features, means) / 2, labels), dim))
    assert abs(found / gamma2 - 1) < 4 * math.sqrt(2 / (n * dim))


def test_shapes_are_checked_while_these_tests_run(logits: torch.Tensor) -> None:
    with pytest.raises(TypeCheckError):
        joint_energy(logits, LABELS[:-1])
