"""Calibration: whether a confidence of 80% is right 80% of the time."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmmcli.core.energy import class_log_probs
from gmmcli.evaluate.accuracy import means_over_images
from gmmcli.evaluate.intervals import BOOTSTRAP, reflected, resampled
from gmmcli.types import Labels, Logits, Weights

BINS = 20
COLDEST, HOTTEST = 1e-6, 1e6
SATURATION_WORTH_A_WORD = 0.01


@dataclass(frozen=True)
class Bins:
    """Images grouped by confidence; sums over the images of each bin, one row a bootstrap replicate."""

    weight: Tensor
    confidence: Tensor
    right: Tensor

    @property
    def gaps(self) -> Tensor:
        """``|accuracy - confidence|`` of each bin; NaN where a bin is empty."""
        return (self.right - self.confidence).abs() / self.weight

    @property
    def ece(self) -> Tensor:
        """``sum_i |B_i| / N |acc(B_i) - conf(B_i)|`` (Eq. 12)."""
        return (self.right - self.confidence).abs().sum(-1) / self.weight.sum(-1)

    @property
    def mce(self) -> Tensor:
        """The largest gap of a bin that is not empty."""
        return self.gaps.nan_to_num(-1).amax(-1).where(self.weight.sum(-1) > 0, torch.nan)

    @property
    def ace(self) -> Tensor:
        """The mean gap of the bins that are not empty, each counting alike."""
        return self.gaps.nanmean(-1)


def equal_width(confidence: Tensor, n_bins: int = BINS) -> Tensor:
    """Return the bin of each confidence: ``((i - 1)/n, i/n]``, so 0.05 of 20 bins lies in the first and so does 0; 1 in the last."""
    edges = torch.arange(1, n_bins, dtype=torch.float64) / n_bins
    return torch.bucketize(confidence.double(), edges)


def equal_mass(confidence: Tensor, n_bins: int = BINS) -> Tensor:
    """Return the bin of each confidence when every bin takes as many images, up to one."""
    rank = confidence.argsort(stable=True).argsort(stable=True)
    return rank * min(n_bins, len(confidence)) // len(confidence)


def binned(bins: Tensor, confidence: Tensor, right: Tensor, weights: Weights) -> Bins:
    """Sum up confidences and right answers bin by bin, at each replicate's weights."""
    member = torch.nn.functional.one_hot(bins, BINS).double()
    return Bins(weights @ member, weights @ (member * confidence[:, None]), weights @ (member * right[:, None]))


def calibration(log_probs: Logits, labels: Labels) -> dict[str, Any]:
    """Measure the calibration of class probabilities.

    Returns:
        ``ece`` over 20 bins of equal width (Eq. 12), ``mce`` the worst of them, ``ace`` over 20 bins of as many images each,
        ``nll`` and ``brier``, each with its interval; ``saturated``, the share of confidences that float32 rounds to exactly 1;
        and the ``bins`` of the reliability diagram.
    """
    top, predicted = log_probs.max(1)
    confidence, right = top.exp(), (predicted == labels).double()
    everyone = torch.ones(1, len(labels), dtype=torch.float64)
    weights = resampled(len(labels))
    wide = equal_width(confidence)
    mass = equal_mass(confidence)
    measured, replicates = (binned(wide, confidence, right, w) for w in (everyone, weights))
    adaptive, adaptive_replicates = (binned(mass, confidence, right, w) for w in (everyone, weights))
    return {
        "ece": float(measured.ece),
        "ece_ci95": reflected(float(measured.ece), replicates.ece),
        "mce": float(measured.mce),
        "mce_ci95": reflected(float(measured.mce), replicates.mce),
        "ace": float(adaptive.ace),
        "ace_ci95": reflected(float(adaptive.ace), adaptive_replicates.ace),
        **means_over_images(log_probs, labels),
        "saturated": float((confidence.float() == 1).double().mean()),
        "bins": [
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "n": int(n),
                "confidence": float(c / n) if n else None,
                "accuracy": float(r / n) if n else None,
            }
            for i, (n, c, r) in enumerate(zip(measured.weight[0], measured.confidence[0], measured.right[0], strict=True))
        ],
    }


def fit_temperature(logits: Logits, labels: Labels) -> float | None:
    """Return the T that minimises the NLL of ``softmax(logits / T)`` (Guo et al. 2017), between 1e-6 and 1e6.

    The NLL is convex in 1/T: bisection finds the one root of its slope. Where every image is classified rightly the NLL falls
    for ever as T does, and there is no such T: None.
    """
    if bool((logits.argmax(1) == labels).all()):
        return None
    z = logits.double()
    truth = z.gather(1, labels[:, None]).squeeze(1)
    cold, hot = torch.tensor(COLDEST).double().log(), torch.tensor(HOTTEST).double().log()
    for _ in range(100):
        middle = (cold + hot) / 2
        expected = (torch.softmax(z / middle.exp(), 1) * z).sum(1)
        if (expected - truth).mean() > 0:  # d NLL / d(1/T): too cold
            cold = middle
        else:
            hot = middle
    return float(middle.exp())


def calibration_values(logits: Logits, labels: Labels, gamma2: float, temperature: float | None) -> dict[str, Any]:
    """Measure calibration at three scales side by side; the figures at the top are those of the paper's scale, gamma^2.

    Without a temperature its place is taken by gamma^2.
    """
    temperature = gamma2 if temperature is None else temperature
    scales = {"unit": 1.0, "gamma": gamma2, "temperature": temperature}
    variants = {name: {"scale": scale, **calibration(class_log_probs(logits.double(), scale), labels)} for name, scale in scales.items()}
    at_the_top = {key: value for key, value in variants["gamma"].items() if key not in ("scale", "bins")}
    return at_the_top | {"temperature": temperature, "variants": variants}


def with_validation(values: dict[str, Any], logits: Logits, labels: Labels) -> dict[str, Any]:
    """Add each scale's ECE on the validation images, ``validation_ece``: what a scale may be chosen by without looking at the test."""
    right = (logits.argmax(1) == labels).double()
    everyone = torch.ones(1, len(labels), dtype=torch.float64)
    variants = {}
    for name, variant in values["variants"].items():
        confidence = class_log_probs(logits.double(), variant["scale"]).amax(1).exp()
        variants[name] = variant | {"validation_ece": float(binned(equal_width(confidence), confidence, right, everyone).ece)}
    return values | {"variants": variants}


def calibration_protocol(gamma2: float, n_validation: int, fitted: bool) -> dict[str, Any]:
    """How the figures of ``calibration_values`` were made."""
    return {
        "bins": f"{BINS} of equal width, (low, high]; for ace as many of equal mass, each counting alike",
        "scales": "softmax of logits / s in float64: unit s = 1, gamma the estimated variance (Eq. 11), temperature fitted by NLL",
        "gamma2": gamma2,
        "temperature_fitted": fitted,
        "temperature_split": "validation",
        "n_validation": n_validation,
        "intervals": f"{BOOTSTRAP}; for ece, mce and ace reflected at the figure, which is biased upwards",
    }


def calibration_warnings(values: dict[str, Any], fitted: bool) -> list[str]:
    """Return what a reader of the figures must know."""
    warnings = [
        f"at scale {name}, {variant['saturated']:.1%} of the confidences are exactly 1.0 in float32: the softmax is saturated"
        for name, variant in values["variants"].items()
        if variant["saturated"] > SATURATION_WORTH_A_WORD
    ]
    if not fitted:
        warnings.append("no validation image is classified wrongly, so no temperature can be fitted; gamma^2 stands in for it")
    return warnings
