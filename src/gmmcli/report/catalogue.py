"""Every metric of a report, said once: label, unit, direction, and which facts of a result are its protocol."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite
from statistics import fmean
from typing import Any, Literal, NamedTuple

from gmmcli.data.outliers import short_name
from gmmcli.metrics.scores import score_label


@dataclass(frozen=True)
class Protocol:
    """What a figure was measured on and how. Figures of two protocols are two rows of a report: nothing compares them."""

    facts: tuple[tuple[str, str], ...] = ()
    """Names and values, in the order in which they are told."""

    @classmethod
    def of(cls, result: Mapping[str, Any], names: Iterable[str]) -> "Protocol":
        """Read facts from a result's JSON: of its head, or by a path within its ``protocol``; those that it lacks are left out."""
        found = ((name.rpartition(".")[2], _fact(result, name)) for name in names)
        return cls(tuple((name, f"{value:,}" if isinstance(value, int) else f"{value}") for name, value in found if value is not None))

    def told(self, names: Iterable[str]) -> str:
        """Say some of the facts: ``n 640, from noise``."""
        known = dict(self.facts)
        return ", ".join(f"{name} {known.get(name, 'unknown')}" for name in names)


def _fact(result: Mapping[str, Any], name: str) -> Any:
    if name in result:
        return result[name]
    found: Any = result["protocol"]
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def differing_facts(protocols: Iterable[Protocol]) -> list[str]:
    """The names of the facts in which protocols differ."""
    known = [dict(protocol.facts) for protocol in protocols]
    names = dict.fromkeys(name for facts in known for name in facts)
    return [name for name in names if len({facts.get(name) for facts in known}) > 1]


@dataclass(frozen=True)
class Metric:
    """A figure by its name, what is good about it, and what it was measured on."""

    key: str
    """As published figures name it, too."""
    label: str
    group: str
    better: Literal["high", "low", ""] = "high"
    unit: Literal["%", "AUROC", ""] = "%"
    """Shares are said in percent; shares and AUROC lie in [0, 1], all others are not negative."""
    facts: tuple[str, ...] = ()
    """What of a result is its protocol (``Protocol.of``)."""
    named: tuple[str, ...] = ()
    """Facts that are told of it even where all figures share them."""
    protocol: Protocol = Protocol()

    def of(self, result: Mapping[str, Any], *more: tuple[str, Any]) -> "Metric":
        """This metric under a result's protocol, and further facts."""
        further = tuple((name, f"{value}") for name, value in more if value is not None)
        return replace(self, protocol=Protocol(Protocol.of(result, self.facts).facts + further))


class Figure(NamedTuple):
    """One run's measurement."""

    value: float
    ci95: tuple[float, float] | None = None
    """Over images, where the result has one."""


def said(metric: Metric, value: float) -> str:
    """Return a value as people write it: shares in percent, an error's with two digits behind the point."""
    if metric.unit == "%":
        return f"{100 * value:.{2 if metric.better == 'low' else 1}f}%"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


CLASSIFIED, CALIBRATED, SAMPLED, TRAINED = "Classification", "Calibration", "Samples", "Training"
OOD, ROBUSTNESS = "Out of distribution (AUROC)", "Robustness (accuracy under attack)"
GROUPS = (CLASSIFIED, CALIBRATED, OOD, SAMPLED, ROBUSTNESS, TRAINED)

IMAGES = ("dataset", "split", "n")
PROBABILITIES = (*IMAGES, "probabilities")
BINS = (*IMAGES, "bins")
SCALED = (*BINS, "n_validation")
DRAWN = ("dataset", "n", "samples.from", "filter")  # not how many steps: chains are a part of the recipe
AGAINST = (*DRAWN, "reference", "n_reference", "space")
NEIGHBOURS = (*AGAINST, "neighbours")
ATTACK = (*IMAGES, "steps", "step_size", "restarts", "output", "gradient")

ACCURACY = Metric("accuracy", "accuracy", CLASSIFIED, facts=IMAGES)
CLASSIFICATION = (
    ACCURACY,
    Metric("calibrated_nll", "NLL, temperature", CLASSIFIED, "low", "", PROBABILITIES),
    Metric("calibrated_brier", "Brier score, temperature", CLASSIFIED, "low", "", PROBABILITIES),
    Metric("nll", "NLL, as the model is (gamma²)", CLASSIFIED, "low", "", PROBABILITIES),
    Metric("brier", "Brier score, as the model is (gamma²)", CLASSIFIED, "low", "", PROBABILITIES),
)
ECE = Metric("ece", "ECE, as the model is (gamma²)", CALIBRATED, "low", facts=BINS)
CHOSEN_ECE = Metric("ece chosen", "ECE, scale chosen on validation", CALIBRATED, "low", facts=SCALED)
CALIBRATION = (ECE, Metric("ece temperature", "ECE, temperature", CALIBRATED, "low", facts=SCALED), CHOSEN_ECE)
OOD_SCORE = "log_px"  # whose mean over sets is taken
OOD_MEAN = Metric("ood mean", "mean AUROC of log p(x)", OOD, unit="AUROC", facts=IMAGES, named=("over",))
AGREEMENT = Metric("label_agreement", "recognised as their class", SAMPLED, facts=DRAWN)
COVERAGE = Metric("coverage", "coverage", SAMPLED, facts=NEIGHBOURS)
SAMPLES = (
    Metric("precision", "precision", SAMPLED, facts=NEIGHBOURS),
    Metric("recall", "recall", SAMPLED, facts=NEIGHBOURS),
    COVERAGE,
    Metric("fid", "FID", SAMPLED, "low", "", AGAINST),
    Metric("is_mean", "IS", SAMPLED, "high", "", DRAWN),
    Metric("feature_fid", "Fréchet distance (no FID)", SAMPLED, "low", "", AGAINST, ("space",)),
)
CW = Metric("cw", "C&W, mean L2 of the change", ROBUSTNESS, "high", "", (*IMAGES, "aim", "steps", "searches", "learning_rate"))
ENDED = Metric("ended", "trainings that got to the end", TRAINED)
ROLLBACKS = Metric("rollbacks", "rollbacks", TRAINED, "low", "")
MINUTES = Metric("minutes", "training, minutes", TRAINED, "low", "")

TITLES = {"pgd": "PGD", "apgd": "APGD", "square": "Square"}
"""Attacks as papers write them; others go by their command."""
OTHER_ATTACKS = ("attack audit", "attack cw", "attack fgsm")  # measured otherwise, or too weak to compare


def figures(result: Mapping[str, Any]) -> Iterator[tuple[Metric, Figure]]:
    """Yield all that a saved result measured; nothing of what is not a finite number."""
    for metric, values, key in _measured(result):
        value = values.get(key)
        if value is not None and isfinite(value):
            interval = values.get(f"{key}_ci95") or (values.get("ci95") if key == "accuracy" else None)
            yield metric, Figure(value, tuple(interval) if interval else None)


def _measured(result: Mapping[str, Any]) -> Iterator[tuple[Metric, Mapping[str, Any], str]]:
    """Yield each metric, the values among which its figure is, and the figure's key in them."""
    values: dict[str, Any] = result["values"]
    match result["command"]:
        case "eval accuracy":
            yield from ((metric.of(result), values, metric.key) for metric in CLASSIFICATION)
        case "eval calibrate":
            variants = values["variants"]
            scales = ("gamma", "temperature", _chosen(variants))
            yield from ((metric.of(result), variants[scale], "ece") for metric, scale in zip(CALIBRATION, scales, strict=True))
        case "eval ood":
            yield from _detection(result)
        case "eval generate":
            yield AGREEMENT.of(result, ("judge", values.get("judge"))), values, AGREEMENT.key
            yield from ((metric.of(result), values, metric.key) for metric in SAMPLES)
        case "attack audit":
            yield from _worst_case(result)
        case "attack cw":
            yield CW.of(result), values, "l2_mean"
        case command if is_within_ball(command):
            yield from _within_ball(result)


def _chosen(variants: Mapping[str, Any]) -> str:
    """The scale, estimated or fitted, whose calibration was better on the validation images."""
    return min(("gamma", "temperature"), key=lambda name: variants[name].get("validation_ece", 0.0))


def _detection(result: Mapping[str, Any]) -> Iterator[tuple[Metric, Mapping[str, Any], str]]:
    about, fitted = result["protocol"].get("sets", {}), result["protocol"].get("fitted", {})
    for name, scores in result["values"].items():
        if "missing" in scores:
            continue
        facts = about.get(name, {})
        for score, values in scores.items():
            metric = Metric(
                f"ood {short_name(name)} {score}", f"{score_label(score)} against {short_name(name)}", OOD, unit="AUROC", facts=IMAGES
            )
            of_set = ("set", name), ("set n", facts.get("n")), ("set images", facts.get("images"))
            yield metric.of(result, *of_set, *fitted.get(score, {}).items()), values, "auroc"


def _worst_case(result: Mapping[str, Any]) -> Iterator[tuple[Metric, Mapping[str, Any], str]]:
    suite = result["protocol"].get("attacks")
    attacks = f"{len(suite)} ({sha256(json.dumps(suite, sort_keys=True).encode()).hexdigest()[:6]})" if suite else None
    for eps, row in result["values"]["worst_case"].items():
        metric = Metric(f"worst {eps}", f"{eps}, worst case", ROBUSTNESS, facts=(*IMAGES, "norm", "transfer_from"))
        yield metric.of(result, ("attacks", attacks)), row, "accuracy"


def is_within_ball(command: str) -> bool:
    """Whether a command measures the accuracy under one attack at each radius."""
    return command.startswith("attack ") and command not in OTHER_ATTACKS


def _within_ball(result: Mapping[str, Any]) -> Iterator[tuple[Metric, Mapping[str, Any], str]]:
    """Accuracy at each radius; that under an attack on cross-entropy, which is prone to masking, makes nobody better."""
    kind, loss, norm = result["command"].removeprefix("attack "), result["protocol"]["loss"], result["protocol"]["norm"]
    attack = TITLES.get(kind, kind)
    name = "pgd" if (attack, loss, norm) == ("PGD", "ce", "linf") else f"{attack.lower()}-{loss}-{norm}"
    for eps, row in result["values"]["eps"].items():
        label = f"{eps}, {attack} on {loss}" + ("" if norm == "linf" else f", {norm}")
        yield Metric(f"{name} {eps}", label, ROBUSTNESS, "" if loss == "ce" else "high", facts=ATTACK).of(result), row, "accuracy"


def is_detection(metric: Metric) -> bool:
    """Whether a metric is the AUROC against one set of the score whose mean over sets is taken."""
    return metric.group == OOD and metric.key.endswith(f" {OOD_SCORE}")


def mean_detection(found: Mapping[Metric, Figure]) -> tuple[Metric, Figure]:
    """Return the mean AUROC over several sets.

    The ends of its interval are the means of the sets' ends. All sets are compared with the same test images, so that their errors go
    together: the standard error of a mean is then at most the mean of the standard errors, and this interval is never too narrow for it.

    Args:
        found: figures of metrics for which ``is_detection`` holds, measured on the same test images.
    """
    sets = ", ".join(metric.key.removeprefix("ood ").removesuffix(f" {OOD_SCORE}") for metric in found)
    shared = [fact for fact in next(iter(found)).protocol.facts if fact[0] in IMAGES]
    metric = replace(OOD_MEAN, protocol=Protocol((*shared, ("over", sets))))
    ends = [figure.ci95 for figure in found.values() if figure.ci95]
    ci95 = (fmean(low for low, _ in ends), fmean(high for _, high in ends)) if len(ends) == len(found) else None
    return metric, Figure(fmean(figure.value for figure in found.values()), ci95)
