"""What runs have measured: their saved results, gathered by model, a model being a recipe whatever its seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gmmcli.core.objectives import OBJECTIVES
from gmmcli.core.targets import TARGETS
from gmmcli.errors import RunError
from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe
from gmmcli.report.catalogue import ENDED, IMAGES, MINUTES, ROLLBACKS, Figure, Metric, Protocol, figures, is_detection, mean_detection
from gmmcli.report.summary import Summary, summarise
from gmmcli.run import Run

Results = Mapping[str, dict[str, Any]]
Measured = dict[Metric, Figure]


def of_the_run(run: Run) -> dict[str, dict[str, Any]]:
    """The results about the last checkpoint and the run's own test images, by the stem of their files: of one command the plainest first.

    Each carries its ``stem``, by which ``Run.arrays`` finds what it was computed from.
    """
    own = run.result("eval accuracy")
    found = {}
    for stem, result in sorted(run.results().items()):
        # the split of samples is what they are compared with; eval all is the sum of others
        keys = ["dataset", "step"] + ["split"] * (result["command"] != "eval generate")
        if own and result["command"] != "eval all" and all(result.get(key) == own[key] for key in keys):
            found[stem] = result | {"stem": stem}
    return found


def measured(run: Run, results: Results) -> Measured:
    """Return all that a run's results (``of_the_run``) and its record say.

    A metric contains its protocol, so that results which differ in it stand beside each other. Of two that agree in it, say on a set
    that was asked about twice, the first one counts.
    """
    found: Measured = {}
    for result in results.values():
        for metric, figure in figures(result):
            found.setdefault(metric, figure)
    provenance, status = run.provenance, run.provenance.get("status")
    if status in ("finished", "diverged"):
        found[ENDED] = Figure(float(status == "finished"))
        if rollbacks := sum(line.get("event") == "rollback" for line in run.metrics()):
            found[ROLLBACKS] = Figure(float(rollbacks))
    if status == "finished":
        metric = replace(MINUTES, protocol=Protocol((("device", f"{provenance.get('device')}"),)))
        found[metric] = Figure(provenance["wall_time_s"] / 60)
    return found


def common_detection(runs: Sequence[Measured]) -> list[Measured]:
    """Return for each run its mean AUROC over the sets on which all runs with the same test images were measured alike."""
    means: list[Measured] = [{} for _ in runs]
    for images in dict.fromkeys(_images(metric) for found in runs for metric in found if is_detection(metric)):
        sets = [[metric for metric in found if is_detection(metric) and _images(metric) == images] for found in runs]
        own = [some for some in sets if some]
        common = [metric for metric in own[0] if all(metric in some for some in own)]
        for mean, found, some in zip(means, runs, sets, strict=True):
            if some and common:
                mean.update([mean_detection({metric: found[metric] for metric in common})])
    return means


def _images(metric: Metric) -> tuple[tuple[str, str], ...]:
    return tuple(fact for fact in metric.protocol.facts if fact[0] in IMAGES)


@dataclass(frozen=True)
class Model:
    """The runs of one recipe over seeds."""

    name: str
    runs: tuple[Run, ...]
    results: tuple[Results, ...]
    """What ``of_the_run`` finds of each run."""
    figures: tuple[Measured, ...]
    """Every figure of each run."""

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the first run's seed."""
        return self.runs[0].recipe

    @property
    def family(self) -> str:
        """What the literature would call it."""
        return family(self.recipe)

    def summary(self, metric: Metric) -> Summary | None:
        """The figure over seeds, or None where it was not measured."""
        found = [own[metric] for own in self.figures if metric in own]
        return summarise(metric, found) if found else None

    def result(self, command: str) -> tuple[Run, dict[str, Any]] | None:
        """The first run that has a result of this command, and its result of most images."""
        for run, results in zip(self.runs, self.results, strict=True):
            if found := [result for result in results.values() if result["command"] == command]:
                return run, max(found, key=lambda result: result["n"])
        return None


def family(recipe: Recipe) -> str:
    """Return softmax, softmax-bn, jem, jem-joint, igebm, gmmc-dis, gmmc-gen, gmmc-injected or gmmc-joint; other for another package's."""
    objectives = [stage.objective.kind for stage in recipe.stages]
    if not {*objectives, recipe.chains.target.kind} <= {*OBJECTIVES.builtin, *TARGETS.builtin}:
        return "other"
    if "jem" in objectives:
        return "jem" if objectives[0] == "jem" else "jem-joint"
    if not recipe.model.head.has_means:
        if "contrastive-divergence" in objectives:
            return "igebm"
        return "softmax" if getattr(recipe.model.backbone, "norm", "none") == "none" else "softmax-bn"
    if "contrastive-divergence" not in objectives:
        return "gmmc-dis"
    if len({*objectives}) > 1:
        return "gmmc-joint"
    return "gmmc-injected" if recipe.chains.target.kind == "injected-latent" else "gmmc-gen"


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
    by_seed = [sorted(group, key=lambda run: run.recipe.seed) for group in ordered]
    results = {run: of_the_run(run) for group in by_seed for run in group}
    found = {run: measured(run, own) for run, own in results.items()}
    means = dict(zip(found, common_detection([*found.values()]), strict=True))
    return [
        Model(name, tuple(group), tuple(results[run] for run in group), tuple(means[run] | found[run] for run in group))
        for name, group in zip(_names(ordered), by_seed, strict=True)
    ]


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
