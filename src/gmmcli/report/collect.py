"""What runs have measured: their saved results, grouped by model, a model being a recipe whatever its seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gmmcli.core.objectives import OBJECTIVES
from gmmcli.core.targets import TARGETS
from gmmcli.errors import RunError
from gmmcli.metrics.metric import Estimate
from gmmcli.overrides import flatten
from gmmcli.provenance import public_path
from gmmcli.recipe import Recipe
from gmmcli.report.catalogue import (
    FINISHED,
    IMAGES,
    MINUTES,
    ROLLBACKS,
    Protocol,
    Quantity,
    estimates,
    is_detection,
    is_refined,
    mean_detection,
)
from gmmcli.report.summary import Summary, summarise
from gmmcli.run import Run
from gmmcli.storage import file_stem

ABOUT = {"dataset", "split", "step", "n", "protocol"}  # what a result says it is about
PATHS = ("data.source.path", "data.source.root", "init.from")
Results = Mapping[str, dict[str, Any]]
Estimates = dict[Quantity, Estimate]


def comparable_results(run: Run) -> dict[str, dict[str, Any]]:
    """The results about the checkpoint and the test images of ``eval accuracy``, by the stem of their files, plain ones first.

    Each carries its ``stem``, by which ``Run.arrays`` finds what it was computed from.
    """
    results = {stem: result for stem, result in run.results().items() if result.keys() >= ABOUT}  # others cannot be compared
    comparable = {}
    accuracy = results.get(file_stem("eval accuracy"))
    for stem, result in sorted(results.items()):
        # the split of samples is what they are compared with; eval all is the sum of others
        keys = ["dataset", "step"] + ["split"] * (result["command"] != "eval generate")
        if accuracy and result["command"] != "eval all" and all(result.get(key) == accuracy[key] for key in keys):
            comparable[stem] = result | {"stem": stem}
    return comparable


def run_estimates(run: Run, results: Results) -> Estimates:
    """Return all that a run's results and its record say.

    A quantity contains its protocol, so that results which differ in it stand beside each other. Of two that agree in it, say on a set
    that was asked about twice, the first one counts.
    """
    known: Estimates = {}
    for result in results.values():
        known |= {quantity: estimate for quantity, estimate in estimates(result) if quantity not in known}
    provenance, status = run.provenance, run.provenance.get("status")
    if status in ("finished", "diverged"):
        known[FINISHED] = Estimate(float(status == "finished"))
        if rollbacks := sum(line.get("event") == "rollback" for line in run.metrics()):
            known[ROLLBACKS] = Estimate(float(rollbacks))
    if status == "finished" and isinstance(seconds := provenance.get("wall_time_s"), (int, float)):
        quantity = replace(MINUTES, protocol=Protocol((("device", f"{provenance.get('device')}"),)))
        known[quantity] = Estimate(seconds / 60)
    return known


def common_detection(runs: Sequence[Estimates]) -> list[Estimates]:
    """Return for each run its mean AUROC over the sets on which all runs with the same test images were measured alike."""
    means: list[Estimates] = [{} for _ in runs]
    for images in dict.fromkeys(_images(quantity) for known in runs for quantity in known if is_detection(quantity)):
        sets = [[quantity for quantity in known if is_detection(quantity) and _images(quantity) == images] for known in runs]
        measured = [quantities for quantities in sets if quantities]
        common = [quantity for quantity in measured[0] if all(quantity in quantities for quantities in measured)]
        for mean, known, quantities in zip(means, runs, sets, strict=True):
            if quantities and common:
                mean.update([mean_detection({quantity: known[quantity] for quantity in common})])
    return means


def _images(quantity: Quantity) -> tuple[tuple[str, str], ...]:
    return tuple(fact for fact in quantity.protocol.facts if fact[0] in IMAGES)


@dataclass(frozen=True)
class ModelRuns:
    """The runs of one recipe over seeds."""

    name: str
    family: str
    """What the literature would call it."""
    runs: tuple[Run, ...]
    results: tuple[Results, ...]
    """The ``comparable_results`` of each run."""
    estimates: tuple[Estimates, ...]
    """All of each run."""

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the first run's seed."""
        return self.runs[0].recipe

    def summary(self, quantity: Quantity) -> Summary | None:
        """The estimates over seeds, or None where there are none."""
        over_seeds = [known[quantity] for known in self.estimates if quantity in known]
        return summarise(quantity, over_seeds) if over_seeds else None

    def result(self, command: str) -> tuple[Run, dict[str, Any]] | None:
        """The first run that has a result of this command, and its result of most images; of a refined classifier if of no other."""
        for run, results in zip(self.runs, self.results, strict=True):
            if of_command := [result for result in results.values() if result["command"] == command]:
                return run, max(of_command, key=lambda result: (not is_refined(result), result["n"]))
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


def has_ended(run: Run) -> bool:
    """Whether a training has ended, or has been stopped and measured."""
    return run.provenance.get("status") in ("finished", "diverged") or file_stem("eval accuracy") in run.results()


def unfinished(models: Sequence[ModelRuns]) -> list[str]:
    """How far each training is that has not ended, a sentence each."""
    sentences = []
    for model in models:
        for run in (run for run in model.runs if not has_ended(run)):
            step = max((line["step"] for line in run.metrics() if "loss" in line), default=0)
            of = f" of {steps:,}" if isinstance(steps := run.provenance.get("steps"), int) else ""
            state = "is being trained" if run.is_locked else f"is not finished ({run.status})"
            sentences.append(f"{model.name}, seed {run.recipe.seed}, {state}: step {step:,}{of}")
    return sentences


def gather(runs: Sequence[Run]) -> list[ModelRuns]:
    """Group runs by recipe, seeds apart, in the order of their study or else of their making.

    Those are gathered that have ended, and those that are being trained; where there is neither, those that were stopped.

    Raises:
        RunError: none of them has ended, nor logged anything.
    """
    ended = [run for run in runs if has_ended(run)]
    begun = [run for run in runs if run not in ended and (run.is_locked or not ended) and any("loss" in line for line in run.metrics())]
    begun = [run for run in begun if run.is_locked] or begun
    if not ended and not begun:
        raise RunError(
            "none of these runs has ended, nor logged anything: there is nothing to report", "finish one first: gmmc train --resume"
        )
    # trained again with the same seed: no other seed, and what has ended counts
    newest = {run.recipe: run for some in (begun, ended) for run in sorted(some, key=lambda run: run.id)}
    groups: dict[Recipe, list[Run]] = {}
    for run in runs:
        if newest.get(run.recipe) is run:
            groups.setdefault(replace(run.recipe, seed=0), []).append(run)
    ordered = sorted(groups.values(), key=lambda group: group[0].provenance.get("study_position", 0))
    by_seed = [sorted(group, key=lambda run: run.recipe.seed) for group in ordered]
    results = {run: comparable_results(run) for group in by_seed for run in group}
    known = {run: run_estimates(run, of_run) for run, of_run in results.items()}
    means = dict(zip(known, common_detection([*known.values()]), strict=True))
    return [
        ModelRuns(
            name,
            family(group[0].recipe),
            tuple(group),
            tuple(results[run] for run in group),
            tuple(means[run] | known[run] for run in group),
        )
        for name, group in zip(_names(ordered), by_seed, strict=True)
    ]


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """What to call each: the study's name for it, else the recipe's, with the keys that tell namesakes apart."""
    plain = [group[0].provenance.get("study_model") or group[0].recipe.name for group in groups]
    named = []
    for group, name in zip(groups, plain, strict=True):
        namesakes = [other[0].recipe for other, its_name in zip(groups, plain, strict=True) if its_name == name]
        keys = differing(namesakes) if len(namesakes) > 1 else {}
        values = _flat(group[0].recipe)
        named.append(", ".join([name, *(f"{key.rpartition('.')[2]} {values.get(key, '-')}" for key in keys)]))
    return named


def differing(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The keys in which recipes differ, names and seeds apart, with the value of each; ``None`` where one has no such key."""
    flat = [_flat(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for one in flat for key in one if key not in ("seed", "name"))
    table = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}


def _flat(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe by their dotted keys; of paths what may be published."""
    values = flatten(json.loads(json.dumps(recipe.document())))
    return {key: public_path(value) if key in PATHS else value for key, value in values.items()}
