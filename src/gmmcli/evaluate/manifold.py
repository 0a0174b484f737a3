"""How samples lie among real images: precision, recall, density, coverage, and whether they are copies."""

from math import hypot
from typing import Any

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from gmmcli.evaluate.intervals import Z95, wilson_interval

K = 5


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Each point's distance to its k-th nearest other point."""
    radii: np.ndarray = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(points).kneighbors(points)[0][:, -1]
    return radii


def manifold_values(real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    """Compare samples with real images through balls around each, reaching to its fifth nearest neighbour of its own set.

    Args:
        real: features of real images (image, feature).
        fake: features of samples (image, feature).

    Returns:
        ``precision``, the share of samples inside a real image's ball, ``recall``, the share of real images inside a sample's
        (Kynkaanniemi et al. 2019); ``density``, how many real balls a sample lies in, over k, and ``coverage``, the share of real
        balls with a sample inside (Naeem et al. 2020). The shares with 95% intervals.
    """
    k = min(K, len(real) - 1, len(fake) - 1)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    shape = (len(real), len(fake))
    of_real, of_fake = Hits(*shape), Hits(*shape)
    start = 0
    for distances in pairwise_distances_chunked(real, fake):
        of_real.add(distances < real_radii[start : start + len(distances), None], start)
        of_fake.add(distances < fake_radii, start)
        start += len(distances)
    return {
        **share_values("precision", of_real.columns, of_real.alone_in_column),
        **share_values("recall", of_fake.rows, of_fake.alone_in_row),
        "density": float(of_real.columns.mean() / k),
        **share_values("coverage", of_real.rows, of_real.alone_in_row),
    }


class Hits:
    """Which balls hold which points, a matrix (real, fake) that comes by rows and is only counted."""

    def __init__(self, n_rows: int, n_columns: int) -> None:
        self.rows, self.columns = np.zeros(n_rows, int), np.zeros(n_columns, int)
        self._first_row = np.zeros(n_columns, int)
        self.alone_in_row = np.zeros(n_columns, int)
        """In how many rows each column is the only hit."""

    def add(self, hits: np.ndarray, start: int) -> None:
        """Count the rows from ``start`` on."""
        self.rows[start : start + len(hits)] = hits.sum(1)
        self.alone_in_row += hits[hits.sum(1) == 1].sum(0)
        new = (self.columns == 0) & hits.any(0)
        self._first_row[new] = start + hits[:, new].argmax(0)
        self.columns += hits.sum(0)

    @property
    def alone_in_column(self) -> np.ndarray:
        """In how many columns each row is the only hit."""
        return np.bincount(self._first_row[self.columns == 1], minlength=len(self.rows))


def share_values(name: str, hits: np.ndarray, alone: np.ndarray) -> dict[str, Any]:
    """Return the share of points that any ball holds, and its 95% interval.

    Both the points and the balls' centres are samples. The points give a Wilson interval; what leaving out one centre would change,
    the points that its ball alone holds, gives the jackknife's variance (Efron and Stein 1981). Radii are taken as they are.

    Args:
        name: of the share.
        hits: how many balls hold each point.
        alone: how many points each ball holds alone.
    """
    share = float((hits > 0).mean())
    centres = float(Z95 * np.sqrt((len(alone) - 1) * np.var(alone))) / len(hits)
    low, high = wilson_interval(int((hits > 0).sum()), len(hits))
    return {
        name: share,
        f"{name}_ci95": [max(0.0, share - hypot(share - low, centres)), min(1.0, share + hypot(high - share, centres))],
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
