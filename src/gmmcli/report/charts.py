"""What the charts of the page are drawn from: plain values, read from the runs' results and records."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, sqrt
from typing import Any

import numpy as np

from gmmcli.data.outliers import public_name
from gmmcli.report.catalogue import Quantity, differing_facts, estimates, is_within_ball
from gmmcli.report.collect import ModelRuns, has_ended
from gmmcli.report.inline import address, png
from gmmcli.report.strips import samples
from gmmcli.run_folder import newest_preview

POINTS_SHOWN = 500  # of a t-SNE: each brings its image along
BINS = 40
CURVE_POINTS = 300  # of a training


def charts(models: Sequence[ModelRuns]) -> dict[str, list[dict[str, Any]]]:
    """Return, for each kind of chart, the values of each model; models that lack them are left out."""
    kinds = {
        "samples": samples,
        "previews": previews,
        "reliability": reliability,
        "ood": ood,
        "robustness": robustness,
        "tsne": tsne,
        "curves": curves,
        "switch": switch,
        "stability": stability,
    }
    return {kind: [{"model": m.name} | values for m in models if (values := chart(m)) is not None] for kind, chart in kinds.items()}


def _sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Images of shape (n, channel, height, width) side by side, row by row, as (rows height, columns width, channel)."""
    n, channels, height, width = images.shape
    rows = ceil(n / columns)
    padded = np.zeros((rows * columns, channels, height, width), np.uint8)
    padded[:n] = images
    return padded.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)


def previews(model: ModelRuns) -> dict[str, Any] | None:
    """The newest picture of the chains of each training that has not ended."""
    found = [(run, picture) for run in model.runs if not has_ended(run) and (picture := newest_preview(run.path))]
    pictures = [{"seed": run.recipe.seed, "name": picture.name, "png": address(picture.read_bytes())} for run, picture in found]
    return {"pictures": pictures} if pictures else None


def reliability(model: ModelRuns) -> dict[str, Any] | None:
    """The bins of the reliability diagram at each scale."""
    saved = model.result("eval calibrate")
    if not saved:
        return None
    keys = ("scale", "scale_ci95", "ece", "ece_ci95", "bins")
    return {"variants": {n: {key: v.get(key) for key in keys} for n, v in saved[1]["values"]["variants"].items()}, "n": saved[1]["n"]}


def ood(model: ModelRuns) -> dict[str, Any] | None:
    """Histograms of each score on the run's test images and on each other set that any result of most images has, over common bins."""
    largest = model.result("eval ood")
    if not largest:
        return None
    run, about = largest
    scores: dict[str, dict[str, np.ndarray]] = {}
    auroc: dict[str, dict[str, float]] = {}
    for result in model.results[model.runs.index(run)].values():
        if result["command"] != "eval ood" or result["n"] != about["n"]:
            continue
        for key, values in run.arrays(result["stem"]).items():
            name, _, score = key.rpartition(" ")
            shown = public_name(name)
            scores.setdefault(score, {}).setdefault(shown, values[np.isfinite(values)])
            if name != "in":
                auroc.setdefault(score, {}).setdefault(shown, result["values"][name][score]["auroc"])
    if not auroc:
        return None
    return {
        "sets": [*dict.fromkeys(name for sets in auroc.values() for name in sets)],
        "scores": {score: _histograms(scores[score]) | {"auroc": sets} for score, sets in auroc.items()},
        "in_distribution": f"{about['dataset']} {about['split']}",
    }


def _histograms(sets: dict[str, np.ndarray]) -> dict[str, Any]:
    """Shares of each set's scores in common bins."""
    low, high = np.quantile(np.concatenate(list(sets.values())), (0.005, 0.995))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = {name: np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(1, len(values)) for name, values in sets.items()}
    return {"centres": _rounded((edges[1:] + edges[:-1]) / 2), "shares": {name: _rounded(share) for name, share in shares.items()}}


def robustness(model: ModelRuns) -> dict[str, Any] | None:
    """Accuracy over eps: of the audit its worst case and each attack, else of the attacks that were run, one curve for each protocol."""
    if audit := model.result("attack audit"):
        values = audit[1]["values"]
        curves = {name: {eps: row["accuracy"] for eps, row in rows.items()} for name, rows in values["attacks"].items() if len(rows) > 1}
        curves["worst case"] = {eps: row["accuracy"] for eps, row in values["worst_case"].items()}
        return {"clean": values["clean_accuracy"], "n": audit[1]["n"], "curves": curves, "sentence": values["sentence"]}
    attacks = [result for result in model.results[0].values() if is_within_ball(result["command"])]
    if not attacks:
        return None
    largest = max(result["n"] for result in attacks)
    clean = next(result["values"]["clean_accuracy"] for result in attacks if result["n"] == largest)
    return {"clean": clean, "n": largest, "curves": _curves([result for result in attacks if result["n"] == largest]), "sentence": None}


def _curves(attacks: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy at the radii of all results that agree in their protocol, by attack; namesakes are told apart."""
    same: dict[str, dict[Quantity, dict[str, float]]] = {}
    for result in attacks:
        protocol = result["protocol"]
        name = f"{result['command'].split()[1]}-{protocol['loss']}" + ("" if protocol["norm"] == "linf" else f"-{protocol['norm']}")
        for quantity, estimate in estimates(result):
            eps = quantity.key.split()[-1]
            same.setdefault(name, {}).setdefault(replace(quantity, key=name, label=""), {})[eps] = estimate.value
    curves = {}
    for name, protocols in same.items():
        named = [name for quantity in protocols for name in quantity.named]
        facts = dict.fromkeys([*named, *differing_facts(quantity.protocol for quantity in protocols)])
        for quantity, rows in protocols.items():
            curves[f"{name}, {quantity.protocol.describe(facts)}" if facts else name] = dict(
                sorted(rows.items(), key=lambda row: _radius(row[0]))
            )
    return curves


def _radius(eps: str) -> float:
    over, _, under = eps.partition("/")
    return float(over) / float(under or 1)


def tsne(model: ModelRuns) -> dict[str, Any] | None:
    """Points of the plane with their images on one sheet."""
    saved = model.result("tsne")
    arrays = saved and saved[0].arrays(saved[1]["stem"])
    if not saved or not arrays or "images" not in arrays:
        return None
    n = len(arrays["labels"])
    some = np.sort(np.random.default_rng(0).permutation(n)[:POINTS_SHOWN])
    columns = ceil(sqrt(len(some)))
    images = arrays["images"][some]
    return {
        "x": _rounded(arrays["plane"][some, 0]),
        "y": _rounded(arrays["plane"][some, 1]),
        "labels": arrays["labels"][some].tolist(),
        "sampled": arrays["sampled"][some].tolist(),
        "classes": list(saved[0].card().class_names),
        "sheet": png(_sheet(images, columns)),
        "columns": columns,
        "tile": images.shape[-1],
        "n": n,
        "knn_accuracy": saved[1]["values"]["knn_accuracy"],
    }


def curves(model: ModelRuns) -> dict[str, Any] | None:
    """Validation accuracy and energies over the epochs, one curve for each seed (Fig. 6)."""
    seeds = []
    for run in model.runs:
        lines = run.metrics()
        logged = _thinned([line for line in lines if "loss" in line])
        checked = [line for line in lines if "validation_accuracy" in line]
        per_step = max((line["epoch"] / line["step"] for line in logged), default=0.0)
        seeds.append(
            {
                "seed": run.recipe.seed,
                "epoch": [line["epoch"] for line in logged],
                **{key: [line.get(key) for line in logged] for key in ("energy_data", "energy_model", "accuracy")},
                "validation_epoch": [round(line["step"] * per_step, 3) for line in checked],
                "validation_accuracy": [line["validation_accuracy"] for line in checked],
                "events": [{"epoch": round(line["step"] * per_step, 3), "event": line["event"]} for line in lines if "event" in line],
            }
        )
    ends = np.cumsum([stage.epochs for stage in model.recipe.stages]).tolist()
    return {"seeds": seeds, "switches": ends[:-1]} if any(one["epoch"] for one in seeds) else None


def switch(model: ModelRuns) -> dict[str, Any] | None:
    """Energies around each switch of stages (Table 10): the last step before it and the seven after, as training went in the end."""
    rows: dict[tuple[int, int, int], dict[str, Any]] = {}
    for run in model.runs:
        lines = [line for line in run.metrics() if "loss" in line]
        for before, after in pairwise(lines):
            if after["stage"] > before["stage"] and after["step"] == before["step"] + 1:
                near = [line for line in lines if 0 <= line["step"] - before["step"] <= 7]
                for line in near:  # a rollback logs steps again: the later line stands
                    rows[run.recipe.seed, after["stage"], line["step"]] = {
                        "seed": run.recipe.seed,
                        "iteration": line["step"] - before["step"],
                        "real": line.get("energy_data"),
                        "sampled": line.get("energy_model"),
                    }
    return {"rows": list(rows.values())} if rows else None


def stability(model: ModelRuns) -> dict[str, Any] | None:
    """How many trainings finished, and where the others diverged."""
    finished = [run.provenance.get("status") == "finished" for run in model.runs if has_ended(run) or not run.is_locked]
    events = [line for run in model.runs for line in run.metrics() if line.get("event") in ("diverged", "rollback")]
    if all(finished) and not events:
        return None
    return {
        "finished": sum(finished),
        "of": len(finished),
        "diverged_at": [line["step"] for line in events if line["event"] == "diverged"],
        "rollbacks": sum(line["event"] == "rollback" for line in events),
    }


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some lines, the last among them."""
    step = max(1, ceil(len(lines) / CURVE_POINTS))
    return lines[::-step][::-1]


def _rounded(values: np.ndarray) -> list[float]:
    """Four digits: what a screen can show."""
    return [float(f"{value:.4g}") for value in values]
