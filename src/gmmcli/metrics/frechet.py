"""Distances between two sets of features, and the Inception score."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gmmcli.types import Features
from gmmcli.vision import torchvision

SUBSETS, SUBSET_SIZE = 100, 1000
SPLITS = 10


@dataclass(frozen=True)
class Moments:
    """Mean (feature) and covariance (feature, feature) of a set of features, in float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Features) -> "Moments":
        """Estimate them; ValueError for fewer than two images."""
        if len(features) < 2:
            raise ValueError(f"a covariance needs two images or more, not {len(features)}")
        return cls(features.double().mean(0), features.double().T.cov().view(features.shape[1], features.shape[1]))

    @cached_property
    def factor(self) -> Tensor:
        """R with ``R R^T`` the covariance, a column for each direction that is not rounding error, shape (feature, rank)."""
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        factor: Tensor = vectors[:, kept] * values[kept].sqrt()
        return factor


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2)``, FID in Inception's features (Heusel et al. 2017).

    The trace of the root is the sum of the singular values of ``R_a^T R_b`` with ``S = R R^T``: real by construction, and without the
    root of a rounding error in each of the directions in which singular covariances have nothing, where a general matrix root has
    failed many users of other tools.
    """
    trace = a.covariance.trace() + b.covariance.trace() - 2 * torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    return max(0.0, float((a.mean - b.mean).square().sum() + trace))


def frechet_error(samples: Features, moments: Moments, reference: Moments) -> float:
    """Return the standard error of the Frechet distance of samples, whose moments are given, to a reference taken as known.

    By the delta method: the derivative by a sample's weight is ``2 (mu_a - mu_b) x + x (1 - T) x``, x the sample less its mean and T the
    linear map that carries one normal distribution to the other (Peyre and Cuturi 2019, Remark 2.31). It says nothing of the bias.
    """
    centred = samples.double() - moments.mean
    _, values, directions = torch.linalg.svd(moments.factor.T @ reference.factor, full_matrices=False)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[:1]
    carried = (centred @ (reference.factor @ directions[kept].T)).square() / values[kept]
    influence = 2 * centred @ (moments.mean - reference.mean) + centred.square().sum(1) - carried.sum(1)
    return float(influence.std() / len(samples) ** 0.5)


class KernelDistance(NamedTuple):
    """The mean of the unbiased MMD^2 over subsets, its std over them, and the standard error of the mean."""

    mean: float
    std: float
    error: float


def kernel_distance(samples: Features, reference: Features, seed: int) -> KernelDistance:
    """Return the unbiased MMD^2 with a cubic kernel over subsets: KID in Inception's features (Binkowski et al. 2018).

    The error is that of the samples, the reference taken as known, and of the choice of subsets. The samples' is the first term of
    a U-statistic's variance (Serfling 1980, Sec. 5.2): a sample moves the distance by twice its mean kernel with the other samples
    less that with the reference, each taken over the subsets that it was in. The std over subsets alone would not do: it is of
    subsets of 1,000, not of all samples, and 0 where there are no more than that.
    """
    torchvision("transforms")  # torchmetrics imports it
    from torchmetrics.image.kid import maximum_mean_discrepancy, poly_kernel

    size = min(SUBSET_SIZE, len(samples), len(reference))
    rng = torch.Generator().manual_seed(seed)
    values, moved, times = [], torch.zeros(len(samples)).double(), torch.zeros(len(samples)).double()
    for _ in range(SUBSETS):
        i, j = torch.randperm(len(samples), generator=rng)[:size], torch.randperm(len(reference), generator=rng)[:size]
        x, y = samples[i].double(), reference[j].double()
        within, across = poly_kernel(x, x), poly_kernel(x, y)
        values.append(maximum_mean_discrepancy(within, across, poly_kernel(y, y)))
        moved[i] += 2 * ((within.sum(1) - within.diagonal()) / (size - 1) - across.mean(1))
        times[i] += 1
    distances = torch.stack(values)
    influence = (moved / times)[times > 0]
    error = (influence.var() / len(samples) + distances.var() / SUBSETS).sqrt()
    return KernelDistance(float(distances.mean()), float(distances.std(correction=0)), float(error))


def inception_score(probs: Tensor) -> tuple[float, float]:
    """Return mean and std over ten splits of ``exp E KL(p(y|x) || p(y))`` (Salimans et al. 2016), splits in the given order."""
    scores = []
    n, splits = len(probs), min(SPLITS, len(probs))
    for i in range(splits):
        part = probs[i * n // splits : (i + 1) * n // splits].double()
        divergence = (part * (part.clamp(min=1e-300).log() - part.mean(0).clamp(min=1e-300).log())).sum(1)
        scores.append(divergence.mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))
