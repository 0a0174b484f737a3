"""What runs have measured: their saved results, gathered by model, a model being a recipe whatever its seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from gmmcli.core.heads import Linear
from gmmcli.core.objectives import CenterRegression, ContrastiveDivergence, CrossEntropy, JointEnergyModel
from gmmcli.core.targets import InjectedLatent
from gmmcli.data.outliers import title
from gmmcli.errors import RunError
from gmmcli.evaluate.intervals import wilson_interval
from gmmcli.recipe import Recipe, flatten
from gmmcli.run import Run


@dataclass(frozen=True)
class Metric:
    """A figure by its name, and what is good about it."""

    key: str
    """As published figures name it, too."""
    label: str
    group: str
    better: Literal["high", "low", ""] = "high"
    share: bool = True
    """Said in percent."""


class Figure(NamedTuple):
    """One run's measurement."""

    value: float
    ci95: tuple[float, float] | None = None


class Summary(NamedTuple):
    """One model's measurement over its seeds."""

    mean: float
    std: float | None
    n_seeds: int
    ci95: tuple[float, float] | None
    """The runs' own interval, over test images: the mean of its ends."""

    @property
    def spread(self) -> tuple[float, float]:
        """Where the figure may as well be, for other seeds or other test images: the wider of mean -+ std and the runs' own interval."""
        low, high = self.ci95 or (self.mean, self.mean)
        return min(low, self.mean - (self.std or 0.0)), max(high, self.mean + (self.std or 0.0))


ACCURACY = Metric("accuracy", "accuracy", "Classification")
CLASSIFICATION = (
    ACCURACY,
    Metric("nll", "NLL", "Classification", "low", share=False),
    Metric("brier", "Brier score", "Classification", "low", share=False),
)
ECE = Metric("ece", "ECE, as the model is (gamma²)", "Calibration", "low")
CHOSEN_ECE = Metric("ece chosen", "ECE, scale chosen on validation", "Calibration", "low")
CALIBRATION = (ECE, Metric("ece temperature", "ECE, temperature", "Calibration", "low"), CHOSEN_ECE)
OOD = "Out of distribution (AUROC)"
OOD_MEAN = Metric("ood mean", "log p(x), mean of all sets", OOD, share=False)
SCORES = {"log_px": "log p(x)", "max_py": "max p(y|x)", "mass": "mass"}
AGREEMENT = Metric("label_agreement", "recognised as their class", "Samples")
COVERAGE = Metric("coverage", "coverage", "Samples")
SAMPLES = (
    AGREEMENT,
    Metric("precision", "precision", "Samples"),
    Metric("recall", "recall", "Samples"),
    COVERAGE,
    Metric("fid", "FID", "Samples", "low", share=False),
    Metric("is_mean", "IS", "Samples", share=False),
    Metric("feature_fid", "Fréchet distance (no FID)", "Samples", "low", share=False),
)
BOUNDED = {"attack pgd": "PGD", "attack apgd": "APGD", "attack square": "Square"}
ROBUSTNESS = "Robustness (accuracy under attack)"
MINUTES = Metric("minutes", "training, minutes", "Training", "low", share=False)
ENDED = Metric("ended", "trainings that got to the end", "Training")
ROLLBACKS = Metric("rollbacks", "rollbacks", "Training", "low", share=False)


def measured(run: Run, results: Mapping[str, dict[str, Any]]) -> dict[Metric, Figure]:
    """Return all that a run's results (``of_the_run``) and its record say, by metric, in the order of the report."""
    found: dict[Metric, Figure] = {}
    if accuracy := results.get("eval accuracy"):
        found |= {metric: _figure(accuracy["values"], metric.key) for metric in CLASSIFICATION}
    if calibrate := results.get("eval calibrate"):
        variants = calibrate["values"]["variants"]
        scales = ("gamma", "temperature", _chosen(variants))
        found |= {metric: _figure(variants[scale], "ece") for metric, scale in zip(CALIBRATION, scales, strict=True)}
    if ood := results.get("eval ood"):
        found |= _detection(ood["values"])
    if generate := results.get("eval generate"):
        space = generate["protocol"].get("space")
        found |= {_within(metric, space): _figure(generate["values"], metric.key) for metric in SAMPLES if metric.key in generate["values"]}
    found |= _attacked(results)
    provenance, status = run.provenance, run.provenance.get("status")
    if status in ("finished", "diverged"):
        found[ENDED] = Figure(float(status == "finished"))
        if rollbacks := sum(line.get("event") == "rollback" for line in run.metrics()):
            found[ROLLBACKS] = Figure(float(rollbacks))
    if status == "finished":
        found[MINUTES] = Figure(provenance["wall_time_s"] / 60)
    return {metric: figure for metric, figure in found.items() if isfinite(figure.value)}


def of_the_run(run: Run) -> dict[str, dict[str, Any]]:
    """The results about the last checkpoint and the run's own test images, by command; of several the one of most images.

    Bounded attacks stand by themselves, each under the name of its file: others with other losses and radii are no better or worse.

    Each carries its file's ``stem``, by which ``Run.arrays`` finds what it was computed from.
    """
    own = run.result("eval accuracy")
    found: dict[str, dict[str, Any]] = {}
    for stem, result in run.results().items():
        keys = ["dataset", "step"] + ["split"] * (result["command"] != "eval generate")  # whose split is what samples are compared with
        if own is None or any(result.get(key) != own[key] for key in keys):
            continue
        name = stem if result["command"] in BOUNDED else result["command"]
        if name not in found or result["n"] > found[name]["n"]:
            found[name] = result | {"stem": stem}
    return found


def bounded(results: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of attacks at given radii; of two at the same radius the later one counts: more images, then more work."""

    def weight(result: dict[str, Any]) -> tuple[int, int]:
        return result["n"], result["protocol"]["steps"] * result["protocol"]["restarts"]

    return sorted((result for result in results.values() if result["command"] in BOUNDED), key=weight)


def _within(metric: Metric, space: str | None) -> Metric:
    """Distances in different spaces are different figures."""
    if metric.key != "feature_fid" or space is None:
        return metric
    return replace(metric, key=f"feature_fid {space}", label=f"Fréchet distance in {space} (no FID)")


def _figure(values: dict[str, Any], key: str) -> Figure:
    interval = values.get("ci95" if key == "accuracy" else f"{key}_ci95")
    return Figure(values[key], tuple(interval) if interval else None)


def _chosen(variants: dict[str, Any]) -> str:
    """The scale, estimated or fitted, whose calibration was better on the validation images."""
    return min(("gamma", "temperature"), key=lambda name: variants[name].get("validation_ece", 0.0))


def _detection(values: dict[str, Any]) -> dict[Metric, Figure]:
    sets = {name: scores for name, scores in values.items() if "missing" not in scores}
    found = {}
    if every := [scores["log_px"]["auroc"] for scores in sets.values() if "log_px" in scores]:
        found[OOD_MEAN] = Figure(fmean(every))
    for score, said in SCORES.items():
        for name, scores in sets.items():
            if score in scores:
                metric = Metric(f"ood {title(name)} {score}", f"{said} against {title(name)}", OOD, share=False)
                found[metric] = _figure(scores[score], "auroc")
    return found


def _attacked(results: Mapping[str, dict[str, Any]]) -> dict[Metric, Figure]:
    found = {}
    if audit := results.get("attack audit"):
        for eps, row in audit["values"]["worst_case"].items():
            found[Metric(f"worst {eps}", f"{eps}, worst case", ROBUSTNESS)] = _figure(row, "accuracy")
    for result in bounded(results):
        said, loss, norm = BOUNDED[result["command"]], result["protocol"]["loss"], result["protocol"]["norm"]
        papers = (said, loss, norm) == ("PGD", "ce", "linf")
        name = "pgd" if papers else f"{said.lower()}-{loss}-{norm}"
        for eps, row in result["values"]["eps"].items():
            label = f"{eps}, {said} on {loss}" + ("" if norm == "linf" else f", {norm}")
            metric = Metric(f"{name} {eps}", label, ROBUSTNESS, "" if loss == "ce" else "high")
            found[metric] = _figure(row, "accuracy")
    if (cw := results.get("attack cw")) and cw["values"]["l2_mean"] is not None:
        found[Metric("cw", "C&W, mean L2 of the change", ROBUSTNESS, share=False)] = Figure(cw["values"]["l2_mean"])
    return found


@dataclass(frozen=True)
class Model:
    """The runs of one recipe over seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the first run's seed."""
        return self.runs[0].recipe

    @property
    def family(self) -> str:
        """What the literature would call it."""
        return family(self.recipe)

    @cached_property
    def results(self) -> list[dict[str, dict[str, Any]]]:
        """What ``of_the_run`` finds of each run."""
        return [of_the_run(run) for run in self.runs]

    @cached_property
    def figures(self) -> dict[Metric, list[Figure]]:
        """Every figure of every run."""
        found: dict[Metric, list[Figure]] = {}
        for run, results in zip(self.runs, self.results, strict=True):
            for metric, figure in measured(run, results).items():
                found.setdefault(metric, []).append(figure)
        return found

    def summary(self, metric: Metric) -> Summary | None:
        """The figure over seeds, or None where it was not measured."""
        found = self.figures.get(metric)
        if not found:
            return None
        values = [figure.value for figure in found]
        if metric == ENDED:
            return Summary(fmean(values), None, len(values), wilson_interval(int(sum(values)), len(values)))
        intervals = [figure.ci95 for figure in found if figure.ci95]
        ci95 = (fmean(low for low, _ in intervals), fmean(high for _, high in intervals)) if intervals else None
        return Summary(fmean(values), stdev(values) if len(values) > 1 else None, len(values), ci95)

    def result(self, command: str) -> tuple[Run, dict[str, Any]] | None:
        """The first run that has a result of this command, and the result."""
        return next(((run, own[command]) for run, own in zip(self.runs, self.results, strict=True) if command in own), None)


def family(recipe: Recipe) -> str:
    """Return softmax, softmax-bn, jem, jem-joint, igebm, gmmc-dis, gmmc-gen, gmmc-injected or gmmc-joint."""
    kinds = [type(stage.objective) for stage in recipe.stages]
    if JointEnergyModel in kinds:
        return "jem" if kinds[0] is JointEnergyModel else "jem-joint"
    if isinstance(recipe.model.head, Linear):
        if ContrastiveDivergence in kinds:
            return "igebm"
        return "softmax" if recipe.model.backbone.norm == "none" else "softmax-bn"
    if ContrastiveDivergence not in kinds:
        return "gmmc-dis"
    if CenterRegression in kinds or CrossEntropy in kinds:
        return "gmmc-joint"
    return "gmmc-injected" if isinstance(recipe.chains.target, InjectedLatent) else "gmmc-gen"


def gather(runs: Sequence[Run]) -> list[Model]:
    """Group runs by recipe, seeds apart, in the order of their study or else of their making.

    Raises:
        RunError: none of them has ended.
    """
    ended = [run for run in runs if run.provenance.get("status") in ("finished", "diverged") or run.result("eval accuracy")]
    if not ended:
        raise RunError("none of these runs has ended: there is nothing to report", "finish one first: gmmc train --resume")
    newest = {run.recipe: run for run in sorted(ended, key=lambda run: run.id)}  # trained again with the same seed: no other seed
    groups: dict[Recipe, list[Run]] = {}
    for run in ended:
        if newest[run.recipe] is run:
            groups.setdefault(replace(run.recipe, seed=0), []).append(run)
    ordered = sorted(groups.values(), key=lambda group: group[0].provenance.get("study_position", 0))
    names = _names(ordered)
    return [Model(name, tuple(sorted(group, key=lambda run: run.recipe.seed))) for name, group in zip(names, ordered, strict=True)]


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """What to call each: the study's name for it, else the recipe's, with the keys that tell namesakes apart."""
    plain = [group[0].provenance.get("study_model") or group[0].recipe.name for group in groups]
    named = []
    for group, name in zip(groups, plain, strict=True):
        namesakes = [other[0].recipe for other, own in zip(groups, plain, strict=True) if own == name]
        keys = differing(namesakes) if len(namesakes) > 1 else {}
        own = flatten(group[0].recipe.document())
        named.append(", ".join([name, *(f"{key.rpartition('.')[2]} {own.get(key, '-')}" for key in keys)]))
    return named


def differing(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The keys in which recipes differ, names and seeds apart, with the value of each; ``None`` where one has no such key."""
    flat = [flatten(json.loads(json.dumps(recipe.document()))) for recipe in recipes]
    keys = dict.fromkeys(key for one in flat for key in one if key not in ("seed", "name"))
    table = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}


def rows(models: Sequence[Model]) -> Iterator[tuple[str, list[Metric]]]:
    """Yield the groups of metrics that at least one model has, in the report's order."""
    groups = ["Classification", "Calibration", OOD, "Samples", ROBUSTNESS, "Training"]
    every = dict.fromkeys(metric for model in models for metric in model.figures)
    for group in groups:
        if own := [metric for metric in every if metric.group == group]:
            yield group, own
