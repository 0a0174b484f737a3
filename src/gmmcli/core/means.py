"""The fixed class means of the max-Mahalanobis distribution."""

import torch

from gmmcli.types import Means


def max_mahalanobis_means(n_classes: int, dim: int, radius: float) -> Means:
    """Place ``n_classes`` means at equal norm and maximal mutual distance (a simplex).

    ``||mu_k|| = radius`` and ``<mu_i, mu_j> = -radius^2 / (n_classes - 1)``; the means sum to zero.

    Args:
        n_classes: K, at least 2.
        dim: d, the number of features; a simplex of K points needs ``K <= d + 1``.
        radius: C, the norm of every mean (10 in the paper).

    Returns:
        float32 means, shape (class, feature); built in float64.

    Raises:
        ValueError: fewer than two classes, or more than ``dim + 1``.

    Source: Yang et al. 2021, Appendix C, Algorithm 2.
    """
    if not 2 <= n_classes <= dim + 1:
        raise ValueError(f"max-mahalanobis means need 2 <= classes <= features + 1, got {n_classes} classes and {dim} features")
    means = torch.zeros(n_classes, dim, dtype=torch.float64)
    for k in range(min(n_classes, dim)):  # with K = d + 1 the last mean has no axis left, and needs none
        before, later = means[k, :k], means[k + 1 :]
        means[k, k] = (1 - before @ before).clamp_min(0).sqrt()
        later[:, k] = -(1 / (n_classes - 1) + later[:, :k] @ before) / means[k, k]
    return (radius * means).float()
