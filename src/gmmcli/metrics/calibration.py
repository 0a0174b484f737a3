"""Calibration: whether a confidence of 80% is right 80% of the time."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmmcli.core.energy import class_log_probs
from gmmcli.metrics.accuracy import means_over_images, proportion
from gmmcli.metrics.intervals import OF_GAPS, OF_MEANS, Z95, absolute_sum_interval, exact_interval, resampled, wilson_interval
from gmmcli.types import Labels, Logits

BINS = 20
COLDEST, HOTTEST = 1e-6, 1e6
SATURATION_WARNED_OF = 0.01


@dataclass(frozen=True)
class Bins:
    """Images grouped by confidence: of each bin how many images it holds, and the sums over them."""

    n: Tensor
    confidence: Tensor
    right: Tensor

    @property
    def gaps(self) -> Tensor:
        """``|accuracy - confidence|`` of each bin; NaN where a bin is empty."""
        return (self.right - self.confidence).abs() / self.n

    @property
    def ece(self) -> float:
        """``sum_i |B_i| / N |acc(B_i) - conf(B_i)|`` (Eq. 12)."""
        return float((self.right - self.confidence).abs().sum() / self.n.sum())

    @property
    def mce(self) -> float:
        """The largest gap of a bin that is not empty."""
        return float(self.gaps[self.n > 0].amax())

    @property
    def mce_interval(self) -> list[float]:
        """Its 95% interval: every bin's exact interval of its accuracy, all of them at once (Bonferroni), and what gaps they allow.

        A bootstrap of a maximum over bins is of no use: a bin of one image, often the one with the largest gap, is the same in every
        replicate that holds it, so that the estimate is an end of its own interval.
        """
        filled = self.n > 0
        bins = zip(self.right[filled].tolist(), self.n[filled].tolist(), self.confidence[filled].tolist(), strict=True)
        confidence = 1 - 0.05 / int(filled.sum())
        spans = [(*exact_interval(int(right), int(n), confidence), total / n) for right, n, total in bins]
        least = max(max(low - mean, mean - high, 0.0) for low, high, mean in spans)
        return [least, max(max(high - mean, mean - low) for low, high, mean in spans)]

    @property
    def ace(self) -> float:
        """The mean gap of the bins that are not empty, each counting alike."""
        return float(self.gaps.nanmean())


def equal_width(confidence: Tensor, n_bins: int = BINS) -> Tensor:
    """Return the bin of each confidence: ``((i - 1)/n, i/n]``, so 0.05 of 20 bins lies in the first and so does 0; 1 in the last."""
    edges = torch.arange(1, n_bins, dtype=torch.float64) / n_bins
    return torch.bucketize(confidence.double(), edges)


def equal_mass(confidence: Tensor, n_bins: int = BINS) -> Tensor:
    """Return the bin of each confidence when every bin takes as many images, up to one."""
    rank = confidence.argsort(stable=True).argsort(stable=True)
    return rank * min(n_bins, len(confidence)) // len(confidence)


def binned(bins: Tensor, confidence: Tensor, right: Tensor) -> Bins:
    """Sum up confidences and right answers bin by bin."""
    member = torch.nn.functional.one_hot(bins, BINS).double()
    return Bins(member.sum(0), confidence @ member, right @ member)


def gaps_interval(bins: Tensor, excess: Tensor, weights: Tensor) -> list[float]:
    """Return the 95% interval of a weighted sum of gaps, over the images and with the bins as they are.

    Args:
        bins: the bin of each image.
        excess: right or wrong, less the confidence, of each image.
        weights: of each bin's gap: the proportion of images in it for ECE, the same for all for ACE.
    """
    member = torch.nn.functional.one_hot(bins, BINS).double()
    terms = excess[:, None] * member * (weights / member.sum(0).clamp(min=1))
    counts = resampled(len(bins))
    counts = counts[counts.sum(1) > 0]
    return absolute_sum_interval(terms.sum(0), counts @ terms / counts.mean(1, keepdim=True), len(bins))


def calibration(log_probs: Logits, labels: Labels) -> dict[str, Any]:
    """Measure the calibration of class probabilities.

    Returns:
        ``ece`` over 20 bins of equal width (Eq. 12), ``mce`` the worst of them, ``ace`` over 20 bins of as many images each,
        ``nll`` and ``brier``, each with its interval; ``saturated``, the proportion of confidences that float32 rounds to exactly 1;
        and the ``bins`` of the reliability diagram.
    """
    top, predicted = log_probs.max(1)
    confidence, right = top.exp(), (predicted == labels).double()
    wide, mass = equal_width(confidence), equal_mass(confidence)
    measured, adaptive = (binned(bins, confidence, right) for bins in (wide, mass))
    saturated = proportion(confidence.float() == 1)
    return {
        "ece": measured.ece,
        "ece_ci95": gaps_interval(wide, right - confidence, measured.n / len(labels)),
        "mce": measured.mce,
        "mce_ci95": measured.mce_interval,
        "ace": adaptive.ace,
        "ace_ci95": gaps_interval(mass, right - confidence, 1 / (adaptive.n > 0).sum()),
        **means_over_images(log_probs, labels),
        "saturated": saturated["accuracy"],
        "saturated_ci95": saturated["ci95"],
        "bins": [
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "n": int(n),
                "confidence": float(c / n) if n else None,
                "accuracy": float(r / n) if n else None,
                "ci95": list(wilson_interval(int(r), int(n))) if n else None,
            }
            for i, (n, c, r) in enumerate(zip(measured.n, measured.confidence, measured.right, strict=True))
        ],
    }


def fit_temperature(logits: Logits, labels: Labels) -> float | None:
    """Return the T that minimises the NLL of ``softmax(logits / T)`` (Guo et al. 2017), between 1e-6 and 1e6.

    Where every image is classified correctly the NLL decreases with T without end, and there is no such T: None.
    """
    return None if bool((logits.argmax(1) == labels).all()) else _temperature(logits, labels, 0.0)


def temperature_interval(logits: Logits, labels: Labels) -> list[float] | None:
    """Return the 95% interval of the fitted temperature over the images; None where there is no temperature.

    The temperatures at which the mean slope of the NLL is within 1.96 of its standard errors of zero: the score test of an estimating
    equation, inverted (Boos 1992). Unlike a profile likelihood it does not suppose that ``softmax(logits / T)`` is the truth for some T. It
    reaches to 1e-6 where the few wrong images could as well be none, and to 1e6 where the logits may know nothing of the labels.
    """
    if bool((logits.argmax(1) == labels).all()):
        return None
    return [_temperature(logits, labels, Z95), _temperature(logits, labels, -Z95)]


def _temperature(logits: Logits, labels: Labels, errors: float) -> float:
    """The T at which the mean slope of the NLL in 1/T is so many standard errors, by bisection: it rises with 1/T, the NLL being convex."""
    z = logits.double()
    truth = z.gather(1, labels[:, None]).squeeze(1)
    cold, hot = torch.tensor(COLDEST).double().log(), torch.tensor(HOTTEST).double().log()
    for _ in range(64):  # as far as float64 goes
        middle = (cold + hot) / 2
        slopes = (torch.softmax(z / middle.exp(), 1) * z).sum(1) - truth
        if slopes.mean() > errors * slopes.std(correction=0) / len(slopes) ** 0.5:
            cold = middle
        else:
            hot = middle
    return float(middle.exp())


def calibration_values(logits: Logits, labels: Labels, gamma2: float, temperature: float | None) -> dict[str, Any]:
    """Measure calibration at three scales side by side, the calibrated one first; the values at the top are those at the paper's, gamma^2.

    Without a temperature its place is taken by gamma^2.
    """
    temperature = gamma2 if temperature is None else temperature
    scales = {"temperature": temperature, "gamma": gamma2, "unit": 1.0}
    variants = {name: {"scale": scale, **calibration(class_log_probs(logits.double(), scale), labels)} for name, scale in scales.items()}
    at_the_top = {key: value for key, value in variants["gamma"].items() if key not in ("scale", "bins")}
    return at_the_top | {"temperature": temperature, "variants": variants}


def with_validation(values: dict[str, Any], logits: Logits, labels: Labels) -> dict[str, Any]:
    """Add what validation images say: each scale's ECE, by which one may be selected without looking at the test, and T's interval."""
    right = (logits.argmax(1) == labels).double()
    variants = {}
    for name, variant in values["variants"].items():
        confidence = class_log_probs(logits.double(), variant["scale"]).amax(1).exp()
        bins = equal_width(confidence)
        measured = binned(bins, confidence, right)
        interval = gaps_interval(bins, right - confidence, measured.n / len(labels))
        variants[name] = variant | {"validation_ece": measured.ece, "validation_ece_ci95": interval}
    ends = temperature_interval(logits, labels)
    if ends is None:
        return values | {"variants": variants}
    variants["temperature"] |= {"scale_ci95": ends}
    return values | {"variants": variants, "temperature_ci95": ends}


def calibration_protocol(gamma2: float, n_validation: int, fitted: bool) -> dict[str, Any]:
    """The protocol of ``calibration_values``."""
    return {
        "bins": f"{BINS} of equal width, (low, high]; for ace as many of equal mass, each counting alike",
        "scales": "softmax of logits / s in float64: unit s = 1, gamma the estimated variance (Eq. 11), temperature fitted by NLL",
        "gamma2": gamma2,
        "temperature_fitted": fitted,
        "temperature_split": "validation",
        "n_validation": n_validation,
        "intervals": f"95%: {OF_GAPS} for ece and ace; exact intervals of all bins at once for mce; {OF_MEANS} for nll and brier; "
        "Wilson for saturated and the accuracy of each bin; score test over the validation images for temperature",
    }


def calibration_warnings(values: dict[str, Any], fitted: bool) -> list[str]:
    """Warn of a saturated softmax, and of a temperature that could not be fitted."""
    warnings = [
        f"at scale {name}, {variant['saturated']:.1%} of the confidences are exactly 1.0 in float32: the softmax is saturated"
        for name, variant in values["variants"].items()
        if variant["saturated"] > SATURATION_WARNED_OF
    ]
    if not fitted:
        warnings.append("no validation image is misclassified, so no temperature can be fitted; gamma^2 is used instead")
    return warnings
