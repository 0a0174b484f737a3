"""95% intervals: what a figure measured on n images leaves open."""

from functools import lru_cache
from math import sqrt

import numpy as np
import torch

from gmmcli.types import Weights

Z95 = 1.959963984540054  # of the standard normal
REPLICATES = 300
BOOTSTRAP = f"95% percentiles of {REPLICATES} Poisson bootstrap replicates over the images"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share (Wilson 1927): honest near 0 and 1, where the normal one is not."""
    share, z2 = successes / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@lru_cache(maxsize=4)
def resampled(n: int, seed: int = 0) -> Weights:
    """Return, to read only, how often each of n images counts in each bootstrap replicate, shape (replicate, n).

    Poisson(1) counts: the multinomial ones of the textbook without their fixed sum, so that every image is drawn by itself.
    """
    return torch.from_numpy(np.random.default_rng(seed).poisson(1.0, (REPLICATES, n)).astype(np.float64, order="F"))


def percentiles(replicates: torch.Tensor) -> list[float]:
    """Return the middle 95% of a figure's replicates; those in which it was undefined are left out."""
    low, high = np.nanpercentile(replicates.numpy(), (2.5, 97.5))
    return [float(low), float(high)]


def reflected(figure: float, replicates: torch.Tensor) -> list[float]:
    """Return the basic bootstrap interval of a gap, within [0, 1] and around the figure itself.

    A gap is biased upwards, and each replicate adds the bias once more: its percentiles may lie above the figure. Reflecting them
    at it takes the bias off instead of adding it (Davison and Hinkley 1997, Sec. 5.2).
    """
    low, high = percentiles(replicates)
    return [max(0.0, 2 * figure - high), min(1.0, max(figure, 2 * figure - low))]
