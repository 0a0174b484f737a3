"""Out-of-distribution detection: how well a score tells two sets of images apart. High = in-distribution, everywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gmmcli.evaluate.intervals import BOOTSTRAP, percentiles, resampled
from gmmcli.evaluate.predict import Outputs
from gmmcli.evaluate.scores import SCORES
from gmmcli.types import Energies, Weights

TPR = 0.95
AT_A_TIME = 50  # replicates: bounds the memory, not the result


def _counts(scores: Tensor, positive: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """True and false positives at every distinct threshold, from the highest score down; one row a replicate."""
    order = scores.argsort(descending=True)
    ordered, hit = scores[order], positive[order]
    last_of_a_tie = torch.cat([ordered[1:] != ordered[:-1], torch.tensor([True])])
    w = weights[:, order]
    return (w * hit).cumsum(1)[:, last_of_a_tie], (w * ~hit).cumsum(1)[:, last_of_a_tie]


def _average_precision(true: Tensor, false: Tensor) -> Tensor:
    """``sum_i (recall_i - recall_{i-1}) precision_i``."""
    gained = true.diff(dim=1, prepend=torch.zeros_like(true[:, :1]))
    return (gained * true / (true + false).clamp(min=1e-300)).sum(1) / true[:, -1]


def _figures(scores: Tensor, inside: Tensor, weights: Weights) -> dict[str, Tensor]:
    """The four figures, one value a replicate."""
    true, false = _counts(scores, inside, weights)
    tpr, fpr = true / true[:, -1:], false / false[:, -1:]
    origin = torch.zeros_like(tpr[:, :1])
    first = (tpr >= TPR).double().argmax(1, keepdim=True)
    # the others as positives, from the lowest score up: all that is not above the threshold
    out_true, out_false = (true_or_false[:, -1:] - torch.cat([origin, true_or_false[:, :-1]], 1) for true_or_false in (false, true))
    return {
        "auroc": torch.trapezoid(torch.cat([origin, tpr], 1), torch.cat([origin, fpr], 1), dim=1),
        "aupr_in": _average_precision(true, false),
        "aupr_out": _average_precision(out_true.flip(1), out_false.flip(1)),
        "fpr95": fpr.gather(1, first).squeeze(1).where(true[:, -1] > 0, torch.nan),
    }


def detection(inside: Energies, outside: Energies) -> dict[str, Any]:
    """Measure how well a score separates in-distribution images from others.

    Args:
        inside: scores of in-distribution images, high = in-distribution.
        outside: scores of the others.

    Returns:
        ``auroc``; ``aupr_in`` and ``aupr_out``, average precision with either set as the positives; ``fpr95``, the share of the
        others let in by the threshold that lets in 95% of the in-distribution images; each with its bootstrap interval.
    """
    scores = torch.cat([inside, outside])
    is_inside = torch.arange(len(scores)) < len(inside)
    measured = _figures(scores, is_inside, torch.ones(1, len(scores), dtype=torch.float64))
    chunks = [_figures(scores, is_inside, weights) for weights in torch.split(resampled(len(scores)), AT_A_TIME)]
    values: dict[str, Any] = {}
    for name, value in measured.items():
        values[name] = float(value)
        values[f"{name}_ci95"] = percentiles(torch.cat([chunk[name] for chunk in chunks]))
    return values


def ood_values(own: Outputs, others: Mapping[str, Outputs], gamma2: float, scores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure every score on every set: ``{set: {score: figures}}``."""
    return {
        name: {score: detection(SCORES[score](own, gamma2), SCORES[score](other, gamma2)) for score in scores}
        for name, other in others.items()
    }


def ood_protocol(gamma2: float) -> dict[str, Any]:
    """How the figures of ``ood_values`` were made."""
    return {
        "orientation": "high score = in-distribution",
        "aupr": "average precision; aupr_in has the in-distribution images as positives, aupr_out the others",
        "fpr95": "share of the others accepted where 95% of the in-distribution images are",
        "gamma2": gamma2,
        "intervals": BOOTSTRAP,
    }
