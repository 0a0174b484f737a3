"""One model's figure over its seeds, and how far it is known."""

from collections.abc import Sequence
from math import hypot
from statistics import fmean, stdev
from typing import NamedTuple

from gmmcli.metrics.intervals import Z95, wilson_interval
from gmmcli.report.catalogue import ENDED, Figure, Metric, said


class Summary(NamedTuple):
    """A mean over seeds with its 95% interval."""

    mean: float
    std: float | None
    """Over seeds; None for one."""
    n_seeds: int
    interval: tuple[float, float] | None
    """None where nothing is known of it: such a figure is better than no other."""
    over: str
    """What the interval is over: images, seeds, seeds and images, trainings, or nothing."""

    def overlaps(self, other: "Summary") -> bool:
        """Whether two figures may be as good as each other: always, unless both have intervals and these are apart."""
        if self.interval is None or other.interval is None:
            return True
        (a, b), (c, d) = self.interval, other.interval
        return a <= d and c <= b


def summarise(metric: Metric, figures: Sequence[Figure]) -> Summary:
    """Return the mean of one or several seeds' figures.

    By the law of total variance, the variance of a figure over trainings and test images is that between seeds plus the mean of those
    within them; the interval adds the two as standard errors, in quadrature, each side by itself. It says where the figure of one
    more training may lie, on other images of the same kind. Of one seed it is the interval over images alone, and of figures
    without such intervals that over seeds alone.
    """
    values = [figure.value for figure in figures]
    mean = fmean(values)
    if metric.key == ENDED.key:
        return Summary(mean, None, len(values), wilson_interval(round(sum(values)), len(values)), "trainings")
    std = stdev(values) if len(values) > 1 else None
    within = [(value - figure.ci95[0], figure.ci95[1] - value) for value, figure in zip(values, figures, strict=True) if figure.ci95]
    if not within and not std:  # seeds that agree to the last digit do not prove that all would
        return Summary(mean, std, len(values), None, "")
    below, above = (hypot(Z95 * (std or 0.0), _rms([side[i] for side in within])) for i in (0, 1))
    highest = 1.0 if metric.unit else float("inf")
    over = " and ".join(["seeds"] * (std is not None) + ["images"] * bool(within))
    return Summary(mean, std, len(values), (max(0.0, mean - below), min(highest, mean + above)), over)


def _rms(values: Sequence[float]) -> float:
    return fmean(value**2 for value in values) ** 0.5 if values else 0.0


def summarised(metric: Metric, summary: Summary) -> str:
    """Return the figure, +- its standard deviation over seeds, and its interval with what that is over where it is not images alone."""
    text = said(metric, summary.mean) + (f" ± {said(metric, summary.std)}" if summary.std is not None else "")
    if summary.interval is None:
        return f"{text} (no interval)"
    low, high = (said(metric, end) for end in summary.interval)
    return f"{text} ({low} to {high}{'' if summary.over == 'images' else f' over {summary.over}'})"
