"""One model's estimate over its seeds, and its interval."""

from collections.abc import Sequence
from math import hypot
from statistics import fmean, stdev
from typing import NamedTuple

from gmmcli.metrics.intervals import Z95, wilson_interval
from gmmcli.metrics.metric import Estimate
from gmmcli.report.catalogue import FINISHED, Quantity, format_value


class Summary(NamedTuple):
    """A mean over seeds with its 95% interval."""

    mean: float
    std: float | None
    """Over seeds; None for one."""
    n_seeds: int
    interval: tuple[float, float] | None
    """None where it is unknown: such a mean is better than no other."""
    over: str
    """What the interval is over: images, seeds, seeds and images, trainings, or nothing."""

    def overlaps(self, other: "Summary") -> bool:
        """Whether the intervals overlap, or one of them is unknown: neither is then better."""
        if self.interval is None or other.interval is None:
            return True
        (a, b), (c, d) = self.interval, other.interval
        return a <= d and c <= b


def summarise(quantity: Quantity, estimates: Sequence[Estimate]) -> Summary:
    """Return the mean of one or several seeds' estimates.

    By the law of total variance, the variance over trainings and test images is that between seeds plus the mean of those
    within them; the interval adds the two as standard errors, in quadrature, each side by itself. It says where the estimate of one
    more training may lie, on other images of the same kind. Of one seed it is the interval over images alone, and of estimates
    without such intervals that over seeds alone.
    """
    values = [estimate.value for estimate in estimates]
    mean = fmean(values)
    if quantity.key == FINISHED.key:
        return Summary(mean, None, len(values), wilson_interval(round(sum(values)), len(values)), "trainings")
    std = stdev(values) if len(values) > 1 else None
    within = [(value - ci95[0], ci95[1] - value) for value, ci95 in estimates if ci95]
    if not within and not std:  # seeds that agree to the last digit do not prove that all would
        return Summary(mean, std, len(values), None, "")
    images = [fmean(side**2 for side in sides) ** 0.5 for sides in zip(*within, strict=True)] or [0.0, 0.0]
    below, above = (hypot(Z95 * (std or 0.0), side) for side in images)
    highest = 1.0 if quantity.unit else float("inf")
    over = " and ".join(["seeds"] * (std is not None) + ["images"] * bool(within))
    return Summary(mean, std, len(values), (max(quantity.lowest, mean - below), min(highest, mean + above)), over)


def format_summary(quantity: Quantity, summary: Summary) -> str:
    """Return the mean, +- its standard deviation over seeds, and its interval with what that is over where it is not images alone."""
    text = format_value(quantity, summary.mean) + (f" ± {format_value(quantity, summary.std)}" if summary.std is not None else "")
    if summary.interval is None:
        return f"{text} (no interval)"
    low, high = (format_value(quantity, end) for end in summary.interval)
    return f"{text} ({low} to {high}{'' if summary.over == 'images' else f' over {summary.over}'})"
