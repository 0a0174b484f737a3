"""Samples of each class in a strip, beside a strip of real images."""

from math import ceil
from typing import Any

import numpy as np

from gmmcli.report.collect import ModelRuns
from gmmcli.report.inline import png
from gmmcli.run import Run

SHOWN = 6  # of each class
MOST_CLASSES = 20
CELL = 48  # pixels that an image is enlarged to, about


def samples(model: ModelRuns) -> dict[str, Any] | None:
    """Some samples of each class, beside real images where the result holds them."""
    saved = _drawn(model)
    arrays = saved and saved[0].arrays(saved[1]["stem"])
    if not saved or not arrays:
        return None
    run, result = saved
    names = run.card().class_names[:MOST_CLASSES]
    groups = {"samples": "labels", "real": "real_labels"} if "real" in arrays else {"samples": "labels"}
    shown = {name: [arrays[name][arrays[of] == k][:SHOWN] for k in range(len(names))] for name, of in groups.items()}
    classes = [k for k in range(len(names)) if len(shown["samples"][k])]
    if not classes:
        return None
    columns = max(len(some[k]) for some in shown.values() for k in classes)
    side = arrays["samples"].shape[-1]
    scale = max(1, round(CELL / side))
    return {
        "rows": [{"class": names[k]} | {name: png(_strip(some[k], columns)) for name, some in shown.items()} for k in classes],
        "real": "real" in shown,
        "width": scale * (columns * (side + _gap(side)) - _gap(side)),
        "height": scale * side,
        "about": _said(_origin(result)),
    }


def _drawn(model: ModelRuns) -> tuple[Run, dict[str, Any]] | None:
    """The first run with samples of all classes: of fresh chains rather than of the buffer, beside real images rather than without."""
    for run, results in zip(model.runs, model.results, strict=True):
        compared = [one for one in results.values() if one["command"] == "sample" and len(one["classes"]) == len(run.card().class_names)]
        if found := [*compared, *(result for result in results.values() if result["command"] == "eval generate")]:
            fresh = [one for one in found if _origin(one).get("from") == "noise"]
            return run, max(fresh or found, key=lambda one: (one["command"] == "sample", one["n"], -len(one["stem"])))  # the plainest
    return None


def _origin(result: dict[str, Any]) -> dict[str, Any]:
    """How the samples of a result were drawn."""
    origin: dict[str, Any] = result["protocol"].get("samples", result["protocol"])
    return origin


def _said(origin: dict[str, Any]) -> str:
    if origin.get("from") == "noise":
        return f"fresh chains, {origin['steps']} steps" if "steps" in origin else "fresh chains"
    if origin.get("from") == "buffer":
        return "the replay buffer (for fresh chains: gmmc sample --class all --per-class 8 --with-real)"
    return f"from {origin.get('from')}"


def _gap(side: int) -> int:
    """Pixels between images of this size, before they are enlarged."""
    return ceil(side / 16)


def _strip(images: np.ndarray, columns: int) -> np.ndarray:
    """Images of shape (n, channel, height, width) in a row of so many, transparent between them and where there are fewer, as RGBA."""
    n, _, height, width = images.shape
    row = np.zeros((columns, 4, height, width + _gap(width)), np.uint8)
    row[:n, :3, :, :width] = images
    row[:n, 3, :, :width] = 255
    return row.transpose(2, 0, 3, 1).reshape(height, -1, 4)[:, : -_gap(width)]
