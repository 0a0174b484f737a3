"""Energies and densities as functions of logits or features; low energy = likely, log density = -energy + const."""

import torch

from gmmcli.types import Energies, Features, Labels, Latents, Logits, Means, Scalar


def squared_distances(features: Features, means: Means) -> Logits:
    """Return ``||phi - mu_k||^2``, shape (batch, class).

    Written as the difference and not as ``|phi|^2 - 2 <phi, mu> + |mu|^2``, whose float32 cancellation
    near a mean costs every digit of the small distances that matter.
    """
    return (features[:, None, :] - means[None, :, :]).square().sum(-1)


def joint_energy(logits: Logits, labels: Labels) -> Energies:
    """Return ``E(x, y) = -logits[y]`` (Eq. 4); for a max-Mahalanobis head ``1/2 ||phi(x) - mu_y||^2``."""
    return -logits.gather(1, labels[:, None]).squeeze(1)


def marginal_energy(logits: Logits) -> Energies:
    """Return ``E(x) = -logsumexp_y logits[y]``: the joint energy with the label summed out."""
    return -logits.logsumexp(1)


def latent_energy(features: Features, latents: Latents) -> Energies:
    """Return ``1/2 ||phi(x) - z||^2``, the regression energy of a latent z (Eqs. 8 and 9)."""
    return (features - latents).square().sum(1) / 2


def log_density(logits: Logits, gamma2: float) -> Energies:
    """Return ``log p(x)`` up to a constant: ``logsumexp_k(-||phi - mu_k||^2 / (2 gamma^2))``.

    The authors' code takes log(sum(exp(.))) without the maximum, which is -inf from a squared distance of 208 up.
    """
    return -marginal_energy(logits / gamma2)


def class_log_probs(logits: Logits, gamma2: float) -> Logits:
    """Return ``log p(y|x) = log_softmax_y(-||phi - mu_y||^2 / (2 gamma^2))`` (Eq. 11)."""
    return torch.log_softmax(logits / gamma2, dim=1)


def shared_variance(energies: Energies, dim: int) -> Scalar:
    """Return the shared variance ``gamma^2 = mean ||phi(x) - mu_y||^2 / d`` of joint energies (Sec. 3.1, footnote 2)."""
    return 2 * energies.double().mean() / dim
