"""How good samples are, against real images."""

from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmcli.evaluate.frechet import SPLITS, SUBSET_SIZE, SUBSETS, Moments, frechet_distance, inception_score, kernel_distance
from gmmcli.evaluate.manifold import K, manifold_values
from gmmcli.evaluate.scores import log_odds
from gmmcli.evaluate.spaces import Space
from gmmcli.rng import stream
from gmmcli.types import Features, Logits

MOST = 10_000  # images of either kind in the figures of nearest neighbours


def most_confident(logits: Logits, top_share: float) -> Tensor:
    """Return the positions of the most confident share of each predicted class: the filter behind the paper's FID."""
    predicted, order = logits.argmax(1), log_odds(logits).argsort(descending=True)
    own = [order[predicted[order] == k] for k in range(logits.shape[1])]
    return torch.cat([positions[: ceil(round(top_share * len(positions), 9))] for positions in own]).sort().values


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
    frechet = frechet_distance(Moments.of(samples), moments or Moments.of(reference))
    kernel, kernel_std = kernel_distance(samples, reference, seed)
    if space.class_probs is None:
        return {"feature_fid": frechet, "feature_kid": kernel, "feature_kid_std": kernel_std}
    shuffled = torch.randperm(len(samples), generator=stream("cpu", seed, "inception score"))  # they come class by class
    mean, std = inception_score(space.class_probs(samples[shuffled]))
    return {"fid": frechet, "kid": kernel, "kid_std": kernel_std, "is_mean": mean, "is_std": std}


def neighbour_values(samples: Features, reference: Features, seed: int) -> dict[str, float]:
    """Return precision, recall, density and coverage, on at most 10,000 of either."""
    chosen = [few[np.random.default_rng(seed).permutation(len(few))[:MOST]] for few in (reference.numpy(), samples.numpy())]
    return manifold_values(*chosen)


def generation_protocol(space: Space, n_reference: int) -> dict[str, Any]:
    """How the figures were made."""
    return {
        "space": space.name,
        "features": space.about,
        "images": "rounded to bytes",
        "n_reference": n_reference,
        "kid": f"cubic kernel, unbiased, {SUBSETS} subsets of at most {SUBSET_SIZE} images",
        "is": f"{SPLITS} splits, samples shuffled" if space.class_probs else None,
        "neighbours": f"k = {K}, at most {MOST:,} images of either kind",
    }
