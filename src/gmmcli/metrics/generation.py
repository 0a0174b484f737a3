"""How good samples are, against real images."""

from math import ceil
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from gmmcli.metrics.features.spaces import Space
from gmmcli.metrics.frechet import SPLITS, SUBSET_SIZE, SUBSETS, Moments, frechet_distance, frechet_error, inception_score, kernel_distance
from gmmcli.metrics.intervals import OF_MEANS, Z95
from gmmcli.metrics.manifold import K, manifold_values
from gmmcli.metrics.scores import log_odds
from gmmcli.rng import stream
from gmmcli.types import Features, Logits

MOST = 10_000  # images of either kind whose nearest neighbours are compared


def most_confident(logits: Logits, top_share: float) -> Tensor:
    """Return the positions of the most confident share of each predicted class: the filter behind the paper's FID."""
    predicted, order = logits.argmax(1), log_odds(logits).argsort(descending=True)
    ranked = [order[predicted[order] == k] for k in range(logits.shape[1])]
    return torch.cat([positions[: ceil(round(top_share * len(positions), 9))] for positions in ranked]).sort().values


def distance_values(space: Space, samples: Features, reference: Features, moments: Moments | None, seed: int) -> dict[str, Any]:
    """Return Frechet and kernel distance of samples to a reference; called FID and KID in Inception's space only.

    Args:
        space: where the features are from.
        samples: features of the samples.
        reference: features of the reference images.
        moments: reference statistics to use instead of the reference's own in the Frechet distance.
        seed: of the kernel distance's subsets.

    Raises:
        ValueError: fewer than two samples.
    """
    frechet = frechet_values(space, samples, moments or Moments.of(reference))
    kernel = kernel_distance(samples, reference, seed)
    name = "feature_kid" if space.class_probs is None else "kid"
    spread = Z95 * kernel.error
    distances = frechet | {
        name: kernel.mean,
        f"{name}_std": kernel.std,
        f"{name}_ci95": [kernel.mean - spread, kernel.mean + spread],
    }
    if space.class_probs is None:
        return distances
    shuffled = torch.randperm(len(samples), generator=stream("cpu", seed, "inception score"))  # they come class by class
    mean, std = inception_score(space.class_probs(samples[shuffled]))
    splits = min(SPLITS, len(samples))
    spread = float(stdtrit(splits - 1, 0.975)) * std / (splits - 1) ** 0.5
    return distances | {"is_mean": mean, "is_std": std, "is_mean_ci95": [mean - spread, mean + spread]}


def frechet_values(space: Space, images: Features, reference: Moments) -> dict[str, Any]:
    """Return the Frechet distance with its 95% interval under the space's name for it; ValueError for fewer than two images."""
    name = "feature_fid" if space.class_probs is None else "fid"
    moments = Moments.of(images)
    distance, spread = frechet_distance(moments, reference), Z95 * frechet_error(images, moments, reference)
    return {name: distance, f"{name}_ci95": [max(0.0, distance - spread), distance + spread]}


def neighbour_values(samples: Features, reference: Features, seed: int) -> dict[str, Any]:
    """Return precision, recall, density and coverage, on at most 10,000 of either."""
    some = [images[np.random.default_rng(seed).permutation(len(images))[:MOST]] for images in (reference.numpy(), samples.numpy())]
    return manifold_values(*some)


def beside_values(space: Space, images: Features, reference: Features, moments: Moments, seed: int) -> dict[str, Any]:
    """Return the metrics that samples share with the images beside them: those that chains start from, and real test images."""
    return {"n": len(images)} | frechet_values(space, images, moments) | neighbour_values(images, reference, seed)


def generation_protocol(space: Space, n_reference: int) -> dict[str, Any]:
    """The protocol of all of them."""
    return {
        "space": space.name,
        "features": space.about,
        "images": "rounded to bytes",
        "n_reference": n_reference,
        "kid": f"cubic kernel, unbiased, {SUBSETS} subsets of at most {SUBSET_SIZE} images",
        "is": f"{SPLITS} splits, samples shuffled" if space.class_probs else None,
        "neighbours": f"k = {K}, at most {MOST:,} images of either kind",
        "intervals": {
            "precision, recall, coverage": "95%, radii as they are: Wilson over the images in the balls, jackknife over the others",
            "density": f"95%, radii as they are: {OF_MEANS}; variance over the real images",
            "frechet": "95%, the reference as known: delta method over the samples",
            "kernel": "95%, the reference as known: variance of a U-statistic over the samples",
            "is": "95%: Student's t over the splits",
            "shares": "95%: Wilson over the images",
        },
    }
