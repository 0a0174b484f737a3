"""Results as pictures. Each takes plain values, so that a saved result can be drawn again."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text

from gmmcli.data.outliers import short_name
from gmmcli.errors import shortened, visible
from gmmcli.metrics.scores import score_label
from gmmcli.storage import replacing

WITH_OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Microsoft YaHei",
    "Arial Unicode MS",
    "Noto Sans",
    "Noto Emoji",
)
LONGEST_NAME, LONGEST_LINE = 30, 120  # characters of a class or set in a figure, and of a line of its title
BLUE, RED, GREY = "#3b6fb6", "#d1495b", "#8a8f98"
SAME_BYTES: Any = {"svg.hashsalt": "gmmc", "svg.fonttype": "none", "font.size": 9}


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG, and as SVG beside it; the same values give the same bytes."""
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    png, svg = (stem.with_name(stem.name + suffix) for suffix in (".png", ".svg"))
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a class may be called $_$
        text.set_text("\n".join(shortened(visible(line), LONGEST_LINE) for line in text.get_text().split("\n")))
    with replacing(png) as hidden_png, replacing(svg) as hidden_svg:
        _draw(figure, hidden_png, hidden_svg)
    return [png, svg]


def _draw(figure: Figure, png: Path, svg: Path) -> None:
    """Write both formats by their canvases; savefig would draw each of them twice."""
    figure.set_dpi(130)
    with mpl.rc_context(SAME_BYTES | {"font.family": ["DejaVu Sans", *_other_scripts()]}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")  # where no font has a script, its characters are boxes
        FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]
        figure.set_layout_engine("none")  # laid out once: the second file keeps the places of the first
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})  # type: ignore[no-untyped-call]


@cache
def _other_scripts() -> list[str]:
    """The installed fonts that have what DejaVu lacks."""
    return [name for name in WITH_OTHER_SCRIPTS if name in get_font_names()]


def _short(name: str) -> str:
    return shortened(visible(name), LONGEST_NAME)


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, rows the true classes, shaded by the share of each row."""
    counts = np.array(matrix)
    k = len(counts)
    names = list(map(_short, class_names))
    more = 0.14 * max(0, max(map(len, names)) - 12) if k <= 20 else 0  # inches for long names: without them no room is left for the matrix
    figure = Figure(figsize=(2.2 + more + 0.42 * min(k, 40), 1.8 + more + 0.42 * min(k, 40)), layout="constrained")
    axis = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if k <= 20:
        axis.set_xticks(range(k), names, rotation=45, ha="right")
        axis.set_yticks(range(k), names)
        for i, j in np.argwhere(counts):
            axis.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=7, color="white" if shares[i, j] > 0.5 else "black")
    axis.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def reliability(variants: Mapping[str, Any], title: str) -> Figure:
    """Draw a reliability diagram a scale (Figs. 4 and 5): accuracy by confidence, the gap, and below how many images are where."""
    figure = Figure(figsize=(3.4 * len(variants), 4.6), layout="constrained")
    rows = figure.subplots(2, len(variants), squeeze=False, sharex=True, height_ratios=[3, 1])
    for column, (name, variant) in enumerate(variants.items()):
        _reliability(rows[0][column], rows[1][column], variant)
        rows[0][column].set_title(f"{name}, softmax(logits / {variant['scale']:.3g})\nECE {variant['ece']:.2%}")
    rows[0][0].set_ylabel("accuracy")
    rows[1][0].set_ylabel("share of images")
    rows[0][0].legend(fontsize=8, loc="upper left")
    figure.suptitle(title)
    return figure


def _reliability(upper: Axes, lower: Axes, variant: Mapping[str, Any]) -> None:
    bins = variant["bins"]
    full = [b for b in bins if b["n"]]
    left, width = [b["low"] for b in full], bins[0]["high"] - bins[0]["low"]
    accuracy, confidence = (np.array([b[key] for b in full]) for key in ("accuracy", "confidence"))
    upper.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white", linewidth=0.5, label="accuracy")
    upper.bar(
        left,
        confidence - accuracy,
        width,
        accuracy,
        align="edge",
        color=RED,
        alpha=0.35,
        edgecolor=RED,
        hatch="//",
        linewidth=0.5,
        label="gap",
    )
    if all("ci95" in b for b in full):  # results of earlier versions have no intervals
        low, high = np.array([b["ci95"] for b in full]).T
        upper.vlines(np.array(left) + width / 2, low, high, color="black", linewidth=0.6)
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    total = sum(b["n"] for b in bins)
    lower.bar(left, [b["n"] / total for b in full], width, align="edge", color=GREY, edgecolor="white", linewidth=0.5)
    lower.set(xlabel="confidence", ylim=(0, 1))


def histograms(scores: Mapping[str, Mapping[str, np.ndarray]], own: str, title: str) -> Figure:
    """Draw the histograms of each score (columns) on each set (rows) over those of the in-distribution images, as in Table 4.

    Args:
        scores: ``{score: {set: values}}``, the in-distribution set among the sets.
        own: its name.
        title: above all.
    """
    others = [name for name in next(iter(scores.values())) if name != own]
    figure = Figure(figsize=(2.9 * len(scores), 0.8 + 1.7 * len(others)), layout="constrained")
    axes = figure.subplots(len(others), len(scores), squeeze=False)
    for column, (score, sets) in enumerate(scores.items()):
        for row, name in enumerate(others):
            axis = axes[row][column]
            low, high = np.quantile(np.concatenate([sets[own], sets[name]]), (0.005, 0.995))
            edges = np.linspace(low, high if high > low else low + 1, 60)
            for values, color, label in ((sets[own], BLUE, own), (sets[name], RED, name)):
                shares = np.histogram(np.clip(values, low, high), edges)[0] / len(values)
                axis.stairs(shares, edges, fill=True, color=color, alpha=0.6, label=_short(short_name(label)))
            axis.set_yticks([])
            axis.locator_params("x", nbins=4)
            axis.tick_params(labelsize=7)
        axes[0][column].set_title(score_label(score))
    for row in range(len(others)):
        axes[row][0].legend(fontsize=7)
    figure.suptitle(title)
    return figure


def scatter(planes: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], class_names: Sequence[str]) -> Figure:
    """Draw planes side by side (Fig. 1), coloured by class.

    Args:
        planes: ``{title: (coordinates, labels, whether it is a sample)}``; samples are drawn as crosses.
        class_names: for the legend.
    """
    figure = Figure(figsize=(4.4 * len(planes) + 1.2, 4.4), layout="constrained")
    axes = figure.subplots(1, len(planes), squeeze=False)[0]
    colors = mpl.colormaps["tab10" if len(class_names) <= 10 else "turbo"](np.linspace(0, 1, max(10, len(class_names))))
    for axis, (title, (plane, labels, sampled)) in zip(axes, planes.items(), strict=True):
        for k in range(len(class_names)):
            real = (labels == k) & ~sampled
            axis.scatter(*plane[real].T, s=6, color=colors[k], linewidths=0, label=f"class {k}")
            axis.scatter(*plane[(labels == k) & sampled].T, s=14, color=colors[k], marker="x", linewidths=0.8)
        axis.set(title=title, xticks=[], yticks=[])
    if len(class_names) <= 20:
        legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, markerscale=2)
        for text, name in zip(legend.get_texts(), class_names, strict=True):
            text.set_text(_short(name))  # as labels, names that are empty or begin with _ would be left out
    return figure


def robustness(attacks: Mapping[str, Mapping[float, float]], worst: Mapping[float, float], clean: float, title: str) -> Figure:
    """Draw accuracy over eps, a line an attack, and the worst case of each image in black.

    Args:
        attacks: ``{attack: {eps: accuracy}}``.
        worst: ``{eps: accuracy}``.
        clean: accuracy at eps = 0.
        title: above.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axis = figure.subplots()
    colors = mpl.colormaps["tab20"](np.linspace(0, 1, 20))
    for i, (name, curve) in enumerate(attacks.items()):
        axis.plot(
            [255 * eps for eps in curve],
            list(curve.values()),
            "--" if "ce" in name else "-",
            color=colors[i % 20],
            label=name,
            linewidth=1.2,
        )
    axis.plot([255 * eps for eps in worst], list(worst.values()), color="black", linewidth=2.4, label="worst case")
    axis.axhline(clean, color=GREY, linewidth=0.8, linestyle=":", label="clean")
    axis.set_xscale("log", base=2)
    ticks = [255 * eps for eps in worst]
    axis.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks], minor=False)
    axis.minorticks_off()
    axis.set(xlabel="eps (linf), in 1/255", ylabel="accuracy", ylim=(-0.02, 1.02), title=title)
    figure.legend(loc="outside right center", fontsize=8)
    return figure
