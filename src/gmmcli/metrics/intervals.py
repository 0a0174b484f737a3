"""95% intervals over the images."""

from functools import lru_cache
from math import log, sqrt

import numpy as np
import torch
from scipy.special import betaincinv

from gmmcli.types import Weights

Z95 = 1.959963984540054  # of the standard normal
REPLICATES = 300
BOOTSTRAP = f"95% percentiles of {REPLICATES} Poisson bootstrap replicates over the images"
OF_GAPS = f"symmetric bootstrap over the images of the sum's directional derivative, {REPLICATES} replicates, bins as they are"
OF_MEANS = f"Gaffke's bootstrap over the images, {REPLICATES} replicates with one image more at the least or the most there can be"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion (Wilson 1927), which holds its level near 0 and 1 too."""
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@lru_cache(maxsize=4)
def resampled(n: int, seed: int = 0) -> Weights:
    """Return, to read only, how often each of n images counts in each bootstrap replicate, shape (replicate, n).

    Poisson(1) counts: the multinomial ones of the textbook without their fixed sum, so that every image is drawn by itself.
    """
    return torch.from_numpy(np.random.default_rng(seed).poisson(1.0, (REPLICATES, n)).astype(np.float64, order="F"))


def percentiles(replicates: torch.Tensor) -> list[float]:
    """Return the middle 95% of replicates; undefined ones are left out."""
    low, high = np.nanpercentile(replicates.numpy(), (2.5, 97.5))
    return [float(low), float(high)]


@lru_cache(maxsize=4)
def _proportions(n: int) -> torch.Tensor:
    """Return random proportions of n images, uniform among all there are, shape (replicate, n)."""
    drawn = torch.from_numpy(np.random.default_rng(0).exponential(1.0, (REPLICATES, n)))
    return drawn / drawn.sum(1, keepdim=True)


def mean_interval(values: torch.Tensor, least: float, most: float) -> list[float]:
    """Return the 95% interval of the mean of images' values that lie between two bounds, by Gaffke's bootstrap.

    A Bayesian bootstrap (Rubin 1981) with one image more, which for the lower end has the least value there can be and for the upper end
    the most (Gaffke 2005; Learned-Miller and Thomas 2020). An ordinary bootstrap knows only the values that were met: where a few
    images in hundreds make the mean, its lower end is near 0, its upper end too low, and without such an image it has no width.
    For values of 0 and 1 this one is the exact interval of Clopper and Pearson.

    Args:
        values: shape (image,).
        least: no image can have a lower value.
        most: no image can have a higher one.
    """
    weights, values = _proportions(len(values) + 1), values.double().sort().values  # the same for the images in any order
    low, high = (weights @ torch.cat([values, values.new_tensor([bound])]) for bound in (least, most))
    return [float(np.percentile(low.numpy(), 2.5)), float(np.percentile(high.numpy(), 97.5))]


def absolute_sum_interval(terms: torch.Tensor, replicates: torch.Tensor, n: int) -> list[float]:
    """Return the 95% interval of a sum of absolute values, ``sum_b |t_b|``, within [0, 1] and around the sum itself.

    A sum of absolute values is biased upwards, each replicate of it once more, and where a term is 0 in truth the plain bootstrap is not
    even consistent. So the derivative of the sum is resampled, not the sum (Fang and Santos 2019): a deviation of a term counts with the
    term's sign where that is beyond doubt (sqrt(log n) standard errors), and as it is, positive, where it is not. The interval is
    symmetric (Hall 1988): the sum, plus or minus what 95% of those deviations stay below.

    Args:
        terms: shape (term,).
        replicates: the terms in each bootstrap replicate, shape (replicate, term).
        n: images.
    """
    moved = replicates - terms
    sure = terms.abs() > sqrt(log(n)) * moved.square().mean(0).sqrt()
    deviations = (moved * torch.where(sure, terms.sign(), 0.0)).sum(1) + (moved.abs() * ~sure).sum(1)
    total, spread = float(terms.abs().sum()), float(np.percentile(deviations.abs().numpy(), 95))
    return [max(0.0, total - spread), min(1.0, total + spread)]


def exact_interval(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson (1934) of a proportion: never too narrow, however high the confidence."""
    tail = (1 - confidence) / 2
    low = betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
    return float(low), float(high)
