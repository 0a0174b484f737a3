"""How samples lie among real images: precision, recall, density, coverage, and whether they are copies."""

from typing import Any

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

K = 5


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Each point's distance to its k-th nearest other point."""
    radii: np.ndarray = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(points).kneighbors(points)[0][:, -1]
    return radii


def manifold_values(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Compare samples with real images through balls around each, reaching to its fifth nearest neighbour of its own set.

    Args:
        real: features of real images (image, feature).
        fake: features of samples (image, feature).

    Returns:
        ``precision``, the share of samples inside a real image's ball, ``recall``, the share of real images inside a sample's
        (Kynkaanniemi et al. 2019); ``density``, how many real balls a sample lies in, over k, and ``coverage``, the share of real
        balls with a sample inside (Naeem et al. 2020).
    """
    k = min(K, len(real) - 1, len(fake) - 1)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    inside, recalled, covered = np.zeros(len(fake)), [], []
    start = 0
    for distances in pairwise_distances_chunked(real, fake):
        radii = real_radii[start : start + len(distances), None]
        inside += (distances < radii).sum(0)
        recalled.append((distances < fake_radii).any(1))
        covered.append((distances < radii).any(1))
        start += len(distances)
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(np.concatenate(recalled).mean()),
        "density": float(inside.mean() / k),
        "coverage": float(np.concatenate(covered).mean()),
    }


def nearest(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distances to, and positions of, each query's k nearest references, shapes (query, k)."""
    found = NearestNeighbors(n_neighbors=min(k, len(references)), algorithm="brute").fit(references).kneighbors(queries)
    return found[0], found[1]


def memorisation_values(samples: np.ndarray, test: np.ndarray, train: np.ndarray) -> dict[str, Any]:
    """Compare how near samples come to training images with how near test images do, which nobody can have memorised.

    Returns:
        Median distances to the nearest training image, and ``copies``: the share of samples nearer to one than all but 1% of the
        test images are. About 0.01 is what fresh images of the same kind would give.
    """
    from_samples, from_test = nearest(samples, train, 1)[0][:, 0], nearest(test, train, 1)[0][:, 0]
    return {
        "sample_to_train": float(np.median(from_samples)),
        "test_to_train": float(np.median(from_test)),
        "copies": float((from_samples < np.quantile(from_test, 0.01)).mean()),
    }
