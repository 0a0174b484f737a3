"""Out-of-distribution detection: how well a score tells two sets of images apart. High = in-distribution, everywhere."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmmcli.metrics.intervals import BOOTSTRAP, percentiles, resampled
from gmmcli.metrics.outputs import Outputs
from gmmcli.metrics.scores import SCORES
from gmmcli.types import Energies, Weights

TPR = 0.95
AT_A_TIME = 50  # replicates: bounds the memory, not the result


class _Sorted(NamedTuple):
    """Two sets of scores from the highest down, and how many of either set lie at or above each; a function of the scores alone."""

    order: tuple[Tensor, Tensor]
    """Positions in each set, inside and outside."""
    up_to: tuple[Tensor, Tensor, Tensor, Tensor]
    """For each inside score how many inside and outside ones are at least as high; for each outside score how many are higher."""
    tied: Tensor
    """For each outside score how many inside ones are at least as high."""

    @classmethod
    def of(cls, inside: Energies, outside: Energies) -> "_Sorted":
        order = inside.argsort(descending=True), outside.argsort(descending=True)
        x, y = -inside[order[0]], -outside[order[1]]  # ascending, as searchsorted wants them
        at_least = torch.searchsorted(x, x, right=True), torch.searchsorted(y, x, right=True)
        above = torch.searchsorted(x, y), torch.searchsorted(y, y)
        return cls(order, (*at_least, *above), torch.searchsorted(x, y, right=True))


def _figures(scores: _Sorted, inside: Weights, outside: Weights) -> dict[str, Tensor]:
    """The four figures, one value a replicate, at each replicate's weights of the inside and the outside images.

    Sums over images rather than over thresholds: each image of a tie stands for its share of the step that the tie makes. A row here is
    an image and a column a replicate: index_select picks whole rows several times faster than brackets do.
    """
    w_in, w_out = inside.T.index_select(0, scores.order[0]), outside.T.index_select(0, scores.order[1])
    c_in, c_out = (torch.nn.functional.pad(w.cumsum(0), (0, 0, 1, 0)) for w in (w_in, w_out))
    all_in, all_out = c_in[-1], c_out[-1]
    # let in by the threshold at each inside image; higher than each outside image
    true, false, higher_in, higher_out = (c.index_select(0, n) for c, n in zip((c_in, c_out) * 2, scores.up_to, strict=True))
    first = (true / all_in < TPR).sum(0, keepdim=True)
    # the others as positives, from the lowest score up: all that is not above the threshold
    out_true, out_false = all_out - higher_out, all_in - higher_in
    return {
        "auroc": (w_out * (higher_in + c_in.index_select(0, scores.tied))).sum(0) / (2 * all_in * all_out),
        "aupr_in": (w_in * true / (true + false).clamp(min=1e-300)).sum(0) / all_in,
        "aupr_out": (w_out * out_true / (out_true + out_false).clamp(min=1e-300)).sum(0) / all_out,
        "fpr95": (false.gather(0, first).squeeze(0) / all_out).where(all_in > 0, torch.nan),
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
    return _said(*_replicated(inside, outside, 1))


def _replicated(inside: Energies, outside: Energies, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The figures, and their bootstrap replicates; the inside images are drawn alike whatever the seed of the outside ones."""
    scores = _Sorted.of(inside, outside)
    measured = _figures(scores, *(torch.ones(1, len(some), dtype=torch.float64) for some in (inside, outside)))
    weights = (torch.split(resampled(len(some), own), AT_A_TIME) for own, some in ((0, inside), (seed, outside)))
    chunks = [_figures(scores, *pair) for pair in zip(*weights, strict=True)]
    return measured, {name: torch.cat([chunk[name] for chunk in chunks]) for name in measured}


def _said(measured: Mapping[str, Tensor], replicates: Mapping[str, Tensor]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in measured.items():
        values[name] = float(value)
        values[f"{name}_ci95"] = percentiles(replicates[name])
    return values


def ood_values(
    own: Outputs, others: Mapping[str, Outputs], gamma2: float, scores: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Measure every score on every set, ``{set: {score: figures}}``, and the means over the sets, ``{score: figures}``.

    A mean's interval is of the same replicates: the sets share the inside images, and each has its own.
    """
    by_set: dict[str, dict[str, Any]] = {name: {} for name in others}
    means = {}
    for score in scores:
        inside = SCORES[score](own, gamma2)
        found = [_replicated(inside, SCORES[score](other, gamma2), seed) for seed, other in enumerate(others.values(), 1)]
        for name, one in zip(others, found, strict=True):
            by_set[name][score] = _said(*one)
        if found:
            names = found[0][0]
            means[score] = _said(*({name: torch.stack([one[i][name] for one in found]).mean(0) for name in names} for i in (0, 1)))
    return by_set, means


def ood_protocol(gamma2: float) -> dict[str, Any]:
    """How the figures of ``ood_values`` were made."""
    return {
        "orientation": "high score = in-distribution",
        "aupr": "average precision; aupr_in has the in-distribution images as positives, aupr_out the others",
        "fpr95": "share of the others accepted where 95% of the in-distribution images are",
        "gamma2": gamma2,
        "intervals": BOOTSTRAP,
    }
