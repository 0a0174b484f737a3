"""Out-of-distribution detection: how well a score tells two sets of images apart. High = in-distribution, everywhere."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import Any, NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor

from gmmcli.metrics.intervals import BOOTSTRAP, Z95, exact_interval, percentiles, resampled
from gmmcli.types import Energies, Weights

TPR = 0.95
THRESHOLD_FREE = ("auroc", "aupr_in", "aupr_out")
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


def _estimates(scores: _Sorted, inside: Weights, outside: Weights) -> dict[str, Tensor]:
    """The four estimates, one value a replicate, at each replicate's weights of the inside and the outside images.

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
        others let in by the threshold that lets in 95% of the in-distribution images; each with its 95% interval, or None for an AUPR whose
        bootstrap has no width, as of perfect separation.
    """
    measured, replicates = _replicated(inside, outside, 1)
    return _with_intervals(measured, _intervals(measured, replicates, len(inside), len(outside)))


def _replicated(inside: Energies, outside: Energies, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The estimates, and their bootstrap replicates; the inside images are drawn alike whatever the seed of the outside ones."""
    scores = _Sorted.of(inside, outside)
    measured = _estimates(scores, *(torch.ones(1, len(some), dtype=torch.float64) for some in (inside, outside)))
    weights = (torch.split(resampled(len(some), drawn), AT_A_TIME) for drawn, some in ((0, inside), (seed, outside)))
    chunks = [_estimates(scores, *pair) for pair in zip(*weights, strict=True)]
    return {name: float(value) for name, value in measured.items()}, {
        name: torch.cat([chunk[name] for chunk in chunks]) for name in measured
    }


Interval = list[float] | None


def _intervals(measured: Mapping[str, float], replicates: Mapping[str, Tensor], n_inside: int, n_outside: int) -> dict[str, Interval]:
    """The bootstrap's intervals and, where it has no width, those of a closed form; None where there is none."""
    intervals: dict[str, Interval] = {name: percentiles(some) for name, some in replicates.items()}
    for name in THRESHOLD_FREE:
        low, high = intervals[name] or (0.0, 0.0)
        if low == high:
            intervals[name] = auroc_interval(measured[name], n_inside, n_outside) if name == "auroc" else None
    if measured["fpr95"] in (0.0, 1.0):
        intervals["fpr95"] = list(exact_interval(round(n_outside * measured["fpr95"]), n_outside, 0.95))
    return intervals


def auroc_interval(auroc: float, n_inside: int, n_outside: int) -> list[float]:
    """Return the 95% interval of an AUROC by method 5 of Newcombe (2006, Statistics in Medicine 25, 559-573).

    All AUROCs from which the measured one is at most 1.96 standard errors away, each with its own standard error: that of exponential
    scores (Hanley and McNeil 1982), with both numbers of images replaced by their mean. It has a width at 0 and 1, too.
    """
    mean = (n_inside + n_outside) / 2 - 1

    def gap(truth: float, measured: float) -> float:
        spread = truth * (1 - truth) * (1 + mean * (1 - truth) / (2 - truth) + mean * truth / (1 + truth)) / (n_inside * n_outside)
        return measured - truth - Z95 * sqrt(spread)

    def lower(measured: float) -> float:
        return float(brentq(gap, 0.0, measured * (1 - 1e-9), args=(measured,))) if measured > 0 else 0.0

    return [lower(auroc), 1 - lower(1 - auroc)]


def _with_intervals(measured: Mapping[str, float], intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {key: value for name in measured for key, value in ((name, measured[name]), (f"{name}_ci95", intervals[name]))}


def ood_values(
    inside: Mapping[str, Energies], others: Mapping[str, Mapping[str, Energies]]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Measure every score on every set, ``{set: {score: values}}``, and the means over the sets, ``{score: values}``.

    Args:
        inside: ``{score: scores of the in-distribution images}``.
        others: ``{set: {score: scores of its images}}``.
    """
    by_set: dict[str, dict[str, Any]] = {name: {} for name in others}
    means = {}
    for score, within in inside.items():
        sets = [_replicated(within, scores[score], seed) for seed, scores in enumerate(others.values(), 1)]
        intervals = [_intervals(*one, len(within), len(scores[score])) for one, scores in zip(sets, others.values(), strict=True)]
        for name, (measured, _), some in zip(others, sets, intervals, strict=True):
            by_set[name][score] = _with_intervals(measured, some)
        if sets:
            means[score] = _mean(sets, intervals)
    return by_set, means


def _mean(sets: Sequence[tuple[Mapping[str, float], Mapping[str, Tensor]]], intervals: Sequence[Mapping[str, Interval]]) -> dict[str, Any]:
    """The means over the sets. An interval is of the same replicates: the sets share the inside images, and each has its own.

    Where the interval of a set is not the bootstrap's, the ends are the means of the sets' ends, which is never too narrow: the standard
    error of a mean is at most the mean of the standard errors.
    """
    measured = {name: fmean(one[name] for one, _ in sets) for name in sets[0][0]}
    ends: dict[str, Interval] = {}
    for name in measured:
        known = [some[name] for some in intervals]
        if all(end == percentiles(replicates[name]) for end, (_, replicates) in zip(known, sets, strict=True)):
            ends[name] = percentiles(torch.stack([replicates[name] for _, replicates in sets]).mean(0))
        else:
            lows_and_highs = zip(*(end for end in known if end), strict=True)
            ends[name] = [fmean(end) for end in lows_and_highs] if all(known) else None
    return _with_intervals(measured, ends)


def ood_protocol(gamma2: float) -> dict[str, Any]:
    """How the values of ``ood_values`` were made."""
    return {
        "orientation": "high score = in-distribution",
        "aupr": "average precision; aupr_in has the in-distribution images as positives, aupr_out the others",
        "fpr95": "share of the others accepted where 95% of the in-distribution images are",
        "gamma2": gamma2,
        "intervals": f"{BOOTSTRAP}; where they have no width Newcombe's method 5 for auroc, none for aupr; "
        "Clopper-Pearson for an fpr95 of 0 or 1",
    }
