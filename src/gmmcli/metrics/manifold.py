"""How samples lie among real images: precision, recall, density, coverage, and whether they are copies."""

from collections.abc import Iterator
from math import ceil, floor, hypot, log2
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches

from gmmcli.metrics.intervals import REPLICATES, Z95, mean_interval, wilson_interval

K = 5
AT_ONCE = 2**24  # distances: 128 MiB


def on_a_grid(*sets: np.ndarray) -> list[np.ndarray]:
    """Return sets of points as whole numbers so small that float64 holds every product and sum of a squared distance exactly.

    Then no distance depends on the order of its sums, which differs from one call of a matrix product to the next: equal points are at
    distance 0, and equal distances are equal, whichever routine they come from. The grid is a power of two, about 2^-20 of the
    largest deviation from the first set's mean for a thousand features: float32's own precision. Whole numbers and bytes are on it.

    Args:
        sets: points of shape (point, feature).
    """
    centre = sets[0].mean(0, dtype=np.float64)
    largest = max(float(np.abs(points - centre).max()) for points in sets)
    bits = (51 - ceil(log2(sets[0].shape[1]))) // 2
    step = 2.0 ** (floor(log2(largest)) + 1 - bits) if largest else 1.0
    return [np.rint(points.astype(np.float64) / step) - np.rint(centre / step) for points in sets]


def squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of a, as many as memory holds comfortably, and their squared distances to all of b; exact for points on one grid."""
    of_b = np.square(b).sum(1)
    for rows in gen_batches(len(a), max(1, AT_ONCE // len(b))):
        products = a[rows] @ b.T
        products *= -2
        products += of_b
        products += np.square(a[rows]).sum(1)[:, None]
        yield rows, products


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """Each point's squared distance to its k-th nearest other point: the nearest of all is itself."""
    return np.concatenate([np.partition(squares, k, axis=1)[:, k] for _, squares in squared_distances(points, points)])


def manifold_values(real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    """Compare samples with real images through balls around each, reaching to its fifth nearest neighbour of its own set.

    A ball ends before its radius, as in the code of Naeem et al. (prdc): images whose five nearest are copies of them have an empty
    ball.

    Args:
        real: features of real images (image, feature).
        fake: features of samples (image, feature).

    Returns:
        ``precision``, the proportion of samples inside a real image's ball, ``recall``, that of real images inside a sample's
        (Kynkaanniemi et al. 2019); ``density``, how many real balls a sample lies in, over k, and ``coverage``, the proportion of
        real balls with a sample inside (Naeem et al. 2020). All with 95% intervals.
    """
    k = min(K, len(real) - 1, len(fake) - 1)
    real, fake = on_a_grid(real, fake)
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    shape = (len(real), len(fake))
    of_real, of_fake = Hits(*shape), Hits(*shape)
    for rows, squares in squared_distances(real, fake):
        of_real.add(squares < real_radii[rows, None], rows.start)
        of_fake.add(squares < fake_radii, rows.start)
    return {
        **proportion_values("precision", of_real.columns, of_real.alone_in_column),
        **proportion_values("recall", of_fake.rows, of_fake.alone_in_row),
        **density_values(of_real.columns, of_real.rows, k),
        **proportion_values("coverage", of_real.rows, of_real.alone_in_row),
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


def proportion_values(name: str, hits: np.ndarray, alone: np.ndarray) -> dict[str, Any]:
    """Return the proportion of points that any ball holds, and its 95% interval.

    Both the points and the balls' centres are samples. The points give a Wilson interval; what leaving out one centre would change,
    the points that its ball alone holds, gives the jackknife's variance (Efron and Stein 1981). Radii are taken as they are.

    Args:
        name: of the proportion.
        hits: how many balls hold each point.
        alone: how many points each ball holds alone.
    """
    proportion = float((hits > 0).mean())
    centres = float(Z95 * np.sqrt((len(alone) - 1) * np.var(alone))) / len(hits)
    low, high = wilson_interval(int((hits > 0).sum()), len(hits))
    return {
        name: proportion,
        f"{name}_ci95": [max(0.0, proportion - hypot(proportion - low, centres)), min(1.0, proportion + hypot(high - proportion, centres))],
    }


def density_values(columns: np.ndarray, rows: np.ndarray, k: int) -> dict[str, Any]:
    """Return the density and its 95% interval: of the samples by Gaffke's bootstrap, and of the balls' centres by their variance.

    Args:
        columns: how many real balls hold each sample.
        rows: how many samples each real ball holds.
        k: how many real images a ball's own radius counts.
    """
    density = float(columns.mean() / k)
    low, high = mean_interval(torch.from_numpy(columns / k), 0.0, max(1.0, float(columns.max()) / k))
    centres = float(Z95 * rows.std() * len(rows) ** 0.5) / (k * len(columns))
    return {
        "density": density,
        "density_ci95": [max(0.0, density - hypot(density - low, centres)), density + hypot(high - density, centres)],
    }


def nearest(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distances to, and positions of, each query's k nearest references, shapes (query, k); of equal ones the first."""
    k = min(k, len(references))
    on_grid = on_a_grid(references, queries)
    positions = np.concatenate([squares.argsort(1, kind="stable")[:, :k] for _, squares in squared_distances(on_grid[1], on_grid[0])])
    differences = queries[:, None].astype(np.float64) - references[positions]
    return np.sqrt(np.square(differences).sum(2)), positions


def memorisation_values(samples: np.ndarray, test: np.ndarray, train: np.ndarray) -> dict[str, Any]:
    """Compare how near samples come to training images with how near test images do, which nobody can have memorised.

    Returns:
        Median distances to the nearest training image, and ``copies``: the proportion of samples nearer to one than all but 1% of the
        test images are. About 0.01 is what fresh images of the same kind would give. All with 95% intervals, the training images
        as known: of a median by its order statistics; of copies by Wilson over the samples and the bootstrap of the threshold over
        the test images.
    """
    from_samples, from_test = np.sort(nearest(samples, train, 1)[0][:, 0]), np.sort(nearest(test, train, 1)[0][:, 0])
    copies = int((from_samples < np.quantile(from_test, 0.01)).sum())
    low, high = wilson_interval(copies, len(from_samples))
    drawn = np.random.default_rng(0).choice(from_test, (REPLICATES, len(from_test)))
    others = np.searchsorted(from_samples, np.quantile(drawn, 0.01, axis=1)) / len(from_samples)
    proportion, spread = copies / len(from_samples), float(Z95 * others.std())
    return {
        "sample_to_train": float(np.median(from_samples)),
        "sample_to_train_ci95": _median_interval(from_samples),
        "test_to_train": float(np.median(from_test)),
        "test_to_train_ci95": _median_interval(from_test),
        "copies": proportion,
        "copies_ci95": [max(0.0, proportion - hypot(proportion - low, spread)), min(1.0, proportion + hypot(high - proportion, spread))],
    }


def _median_interval(ordered: np.ndarray) -> list[float]:
    """The 95% interval of a median: the order statistics between which one half of the images may lie."""
    low, high = wilson_interval(len(ordered) // 2, len(ordered))
    return [float(ordered[int(low * (len(ordered) - 1))]), float(ordered[ceil(high * (len(ordered) - 1))])]
