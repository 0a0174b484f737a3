"""What a report compares, described once: label, unit, direction, and which facts of a result are its protocol."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf, isfinite
from statistics import fmean
from typing import Any

from gmmcli.data.outliers import public_name, short_name
from gmmcli.metrics.metric import METRICS, SAMPLE_METRICS, Better, Estimate, Metric, Unit
from gmmcli.metrics.scores import score_label

REFINEMENT = "refinement"
"""The fact that chains came before the class, and how."""


def is_refined(result: Mapping[str, Any]) -> bool:
    """Whether a result is about a refined classifier (``Subject.refined``)."""
    return REFINEMENT in result["protocol"]


@dataclass(frozen=True)
class Protocol:
    """What was measured on which images, and how. Estimates under two protocols are two rows of a report: nothing compares them."""

    facts: tuple[tuple[str, str], ...] = ()
    """Names and values, in the order in which they are shown."""

    @classmethod
    def of(cls, result: Mapping[str, Any], paths: Iterable[str], *more: tuple[str, Any]) -> "Protocol":
        """Read facts from a result's JSON, by keys of its head or paths within its ``protocol``; those that it lacks are left out."""
        known = result["protocol"] | result
        facts: dict[str, Any] = {}
        for path in paths:
            value: Any = known
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            facts[path.rpartition(".")[2]] = value
        facts |= dict(more)
        return cls(
            tuple((name, f"{value:,}" if isinstance(value, int) else f"{value}") for name, value in facts.items() if value is not None)
        )

    def describe(self, names: Iterable[str]) -> str:
        """Return some of the facts as text: ``n 640, from noise``."""
        known = {REFINEMENT: "none"} | dict(self.facts)
        return ", ".join(f"{name} {known.get(name, 'unknown')}" for name in names)


def differing_facts(protocols: Iterable[Protocol]) -> list[str]:
    """The names of the facts in which protocols differ."""
    known = [dict(protocol.facts) for protocol in protocols]
    names = dict.fromkeys(name for facts in known for name in facts)
    return [name for name in names if len({facts.get(name) for facts in known}) > 1]


@dataclass(frozen=True)
class Quantity:
    """What estimates are of: a metric under a protocol. Estimates of one quantity are compared, those of two never."""

    key: str
    """The metric's, by which published values name it, too."""
    label: str
    group: str
    better: Better = "high"
    unit: Unit = "share"
    """Shares are shown in percent; shares and AUROC lie in [0, 1]."""
    facts: tuple[str, ...] = ()
    """What of a result is its protocol (``Protocol.of``)."""
    named: tuple[str, ...] = ()
    """Facts that are shown beside it even where all estimates share them."""
    protocol: Protocol = Protocol()
    lowest: float = 0.0
    """No value is below it."""

    def under(self, result: Mapping[str, Any], *more: tuple[str, Any]) -> "Quantity":
        """This quantity under a result's protocol, and further facts; that a classifier was refined is always shown."""
        named = (*self.named, *[REFINEMENT] * is_refined(result))
        return replace(self, protocol=Protocol.of(result, self.facts, *more), named=named)


def format_value(quantity: Quantity, value: float) -> str:
    """Return a value as text: shares in percent, with two decimals where lower is better."""
    if quantity.unit == "share":
        return f"{100 * value:.{2 if quantity.better == 'low' else 1}f}%"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


CLASSIFICATION, CALIBRATION, SAMPLES, TRAINING = "Classification", "Calibration", "Samples", "Training"
OOD, ROBUSTNESS = "Out of distribution (AUROC)", "Robustness (accuracy under attack)"
GROUPS = (CLASSIFICATION, CALIBRATION, OOD, SAMPLES, ROBUSTNESS, TRAINING)

IMAGES = ("dataset", "split", "n", REFINEMENT)
PROBABILITIES = (*IMAGES, "probabilities")
BINS = (*IMAGES, "bins")
SCALED = (*BINS, "n_validation")
DRAWN = ("dataset", "n", "samples.from", "filter")  # not how many steps: chains are a part of the recipe
AGAINST = (*DRAWN, "reference", "n_reference", "space")
NEIGHBOURS = (*AGAINST, "neighbours")
ATTACK = (*IMAGES, "steps", "step_size", "restarts", "output", "gradient")

ACCURACY = Quantity("accuracy", "accuracy", CLASSIFICATION, facts=IMAGES)
OF_OUTPUTS = (
    ACCURACY,
    Quantity("calibrated_nll", "NLL, temperature-scaled", CLASSIFICATION, "low", "", PROBABILITIES),
    Quantity("calibrated_brier", "Brier score, temperature-scaled", CLASSIFICATION, "low", "", PROBABILITIES),
    Quantity("nll", "NLL, uncalibrated (gamma²)", CLASSIFICATION, "low", "", PROBABILITIES),
    Quantity("brier", "Brier score, uncalibrated (gamma²)", CLASSIFICATION, "low", "", PROBABILITIES),
)
ECE = Quantity("ece", "ECE, uncalibrated (gamma²)", CALIBRATION, "low", facts=BINS)
ECE_TEMPERATURE = Quantity("ece temperature", "ECE, temperature-scaled", CALIBRATION, "low", facts=SCALED)
ECE_SELECTED = Quantity("ece chosen", "ECE, scale selected on validation", CALIBRATION, "low", facts=SCALED)
OOD_SCORE = "log_px"  # whose mean over sets is taken
OOD_MEAN = Quantity("ood mean", "mean AUROC of log p(x)", OOD, unit="AUROC", facts=IMAGES, named=("over",))
AGREEMENT = Quantity("label_agreement", "label agreement", SAMPLES, facts=DRAWN)
COVERAGE = Quantity("coverage", "coverage", SAMPLES, facts=NEIGHBOURS)
OF_SAMPLES = (
    Quantity("precision", "precision", SAMPLES, facts=NEIGHBOURS),
    Quantity("recall", "recall", SAMPLES, facts=NEIGHBOURS),
    COVERAGE,
    Quantity("fid", "FID", SAMPLES, "low", "", AGAINST),
    Quantity("is_mean", "Inception score", SAMPLES, "high", "", DRAWN),
    Quantity("feature_fid", "Fréchet distance (not FID)", SAMPLES, "low", "", AGAINST, ("space",)),
)
CW = Quantity("cw", "C&W, mean L2 norm of the perturbation", ROBUSTNESS, "high", "", (*IMAGES, "aim", "steps", "searches", "learning_rate"))
FINISHED = Quantity("ended", "trainings that finished", TRAINING)
ROLLBACKS = Quantity("rollbacks", "rollbacks", TRAINING, "low", "")
MINUTES = Quantity("minutes", "training time, minutes", TRAINING, "low", "")

TITLES = {"pgd": "PGD", "apgd": "APGD", "square": "Square"}
"""Attacks as papers write them; others go by their command."""
OTHER_ATTACKS = ("attack audit", "attack cw", "attack fgsm")  # measured otherwise, or too weak to compare


def estimates(result: Mapping[str, Any]) -> Iterator[tuple[Quantity, Estimate]]:
    """Yield all that a saved result measured; nothing of what is not a finite number."""
    for quantity, values, key in _read(result):
        value = values.get(key)
        if value is not None and isfinite(value):
            interval = values.get(f"{key}_ci95") or (values.get("ci95") if key == "accuracy" else None)
            yield quantity, Estimate(value, tuple(interval) if interval else None)


Readings = Iterator[tuple[Quantity, Mapping[str, Any], str]]
"""Quantities, the values among which their estimate is, and its key in them."""


def _read(result: Mapping[str, Any]) -> Readings:
    values: dict[str, Any] = result["values"]
    match result["command"]:
        case "eval accuracy":
            registered = _registered(METRICS, values, CLASSIFICATION, PROBABILITIES)
            yield from ((quantity.under(result), values, quantity.key) for quantity in (*OF_OUTPUTS, *registered))
        case "eval generate":
            yield AGREEMENT.under(result, ("judge", values.get("judge"))), values, AGREEMENT.key
            registered = _registered(SAMPLE_METRICS, values, SAMPLES, AGAINST)
            yield from ((quantity.under(result), values, quantity.key) for quantity in (*OF_SAMPLES, *registered))
        case "eval calibrate":
            variants = values["variants"]
            selected = min(("gamma", "temperature"), key=lambda scale: variants[scale].get("validation_ece", 0.0))
            for quantity, scale in ((ECE, "gamma"), (ECE_TEMPERATURE, "temperature"), (ECE_SELECTED, selected)):
                yield quantity.under(result), variants[scale], "ece"
        case "eval ood":
            yield from _detection(result)
        case "attack audit":
            yield from _worst_case(result)
        case "attack cw":
            yield CW.under(result), values, "l2_mean"
        case command if is_within_ball(command):
            yield from _within_ball(result)


def _registered(metrics: Mapping[str, Metric[Any]], values: Mapping[str, Any], group: str, facts: tuple[str, ...]) -> list[Quantity]:
    """The registered metrics that a result has."""
    measured = ((key, metrics[key]) for key in metrics if key in values)
    return [
        Quantity(key, metric.label, group, metric.better, metric.unit, facts, lowest=0.0 if metric.unit else -inf)
        for key, metric in measured
    ]


def _detection(result: Mapping[str, Any]) -> Readings:
    about, fitted = result["protocol"].get("sets", {}), result["protocol"].get("fitted", {})
    for name, scores in result["values"].items():
        if "missing" in scores:
            continue
        facts = about.get(name, {})
        for score, values in scores.items():
            label = f"{score_label(score)} against {short_name(name)}"
            quantity = Quantity(f"ood {short_name(name)} {score}", label, OOD, unit="AUROC", facts=IMAGES)
            of_set = ("set", public_name(name)), ("set n", facts.get("n")), ("set images", facts.get("images"))
            yield quantity.under(result, *of_set, *fitted.get(score, {}).items()), values, "auroc"


def _worst_case(result: Mapping[str, Any]) -> Readings:
    suite = result["protocol"].get("attacks")
    attacks = f"{len(suite)} ({sha256(json.dumps(suite, sort_keys=True).encode()).hexdigest()[:6]})" if suite else None
    for eps, row in result["values"]["worst_case"].items():
        quantity = Quantity(f"worst {eps}", f"{eps}, worst case", ROBUSTNESS, facts=(*IMAGES, "norm", "transfer_from"))
        yield quantity.under(result, ("attacks", attacks)), row, "accuracy"


def is_within_ball(command: str) -> bool:
    """Whether a command measures the accuracy under one attack at each radius."""
    return command.startswith("attack ") and command not in OTHER_ATTACKS


def _within_ball(result: Mapping[str, Any]) -> Readings:
    """Accuracy at each radius; under an attack on cross-entropy, which is prone to gradient masking, neither direction is better."""
    kind, loss, norm = result["command"].removeprefix("attack "), result["protocol"]["loss"], result["protocol"]["norm"]
    attack = TITLES.get(kind, kind)
    name = "pgd" if (attack, loss, norm) == ("PGD", "ce", "linf") else f"{attack.lower()}-{loss}-{norm}"
    for eps, row in result["values"]["eps"].items():
        label = f"{eps}, {attack} on {loss}" + ("" if norm == "linf" else f", {norm}")
        quantity = Quantity(f"{name} {eps}", label, ROBUSTNESS, "" if loss == "ce" else "high", facts=ATTACK)
        yield quantity.under(result), row, "accuracy"


def is_detection(quantity: Quantity) -> bool:
    """Whether a quantity is the AUROC against one set of the score whose mean over sets is taken."""
    return quantity.group == OOD and quantity.key.endswith(f" {OOD_SCORE}")


def mean_detection(detected: Mapping[Quantity, Estimate]) -> tuple[Quantity, Estimate]:
    """Return the mean AUROC over several sets.

    The ends of its interval are the means of the sets' ends. All sets are compared with the same test images, so that their errors are
    correlated: the standard error of a mean is then at most the mean of the standard errors, and this interval is never too narrow for it.

    Args:
        detected: estimates of quantities for which ``is_detection`` holds, measured on the same test images.
    """
    sets = ", ".join(quantity.key.removeprefix("ood ").removesuffix(f" {OOD_SCORE}") for quantity in detected)
    shared = [fact for fact in next(iter(detected)).protocol.facts if fact[0] in IMAGES]
    quantity = replace(OOD_MEAN, protocol=Protocol((*shared, ("over", sets))))
    ends = [estimate.ci95 for estimate in detected.values() if estimate.ci95]
    ci95 = (fmean(low for low, _ in ends), fmean(high for _, high in ends)) if len(ends) == len(detected) else None
    return quantity, Estimate(fmean(estimate.value for estimate in detected.values()), ci95)
