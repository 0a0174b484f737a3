from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from PIL import Image

from gmmcli.evaluate.plots import confusion, histograms, reliability, robustness, save, scatter
from gmmcli.metrics.calibration import BINS, calibration


def names(k: int) -> list[str]:
    return [f"class {i}" for i in range(k)]


def matrix(k: int) -> list[list[int]]:
    """Many right, some wrong, and a class without images."""
    counts = np.random.default_rng(0).integers(0, 9, (k, k)) + 40 * np.eye(k, dtype=int)
    counts[-1] = 0
    return counts.tolist()


def variant(scale: float, n: int = 60) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(n, 3, generator=rng), torch.arange(n) % 3
    return {"scale": scale, **calibration((logits.double() / scale).log_softmax(1), labels)}


def scores(*sets: str, n: int = 80) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {score: {name: rng.normal(i, 1 + i, n) for i, name in enumerate(("own", *sets))} for score in ("log_px", "max_py")}


def plane(k: int, n: int = 120, sampled: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)).astype(np.float32), np.arange(n) % k, np.arange(n) < sampled


ATTACKS = {"pgd (ce)": {1 / 255: 0.6, 2 / 255: 0.2}, "pgd (margin)": {1 / 255: 0.5, 2 / 255: 0.1}}
WORST = {1 / 255: 0.4, 2 / 255: 0.05}
DRAWN: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: confusion(matrix(3), names(3), "title"),
    "reliability": lambda: reliability({"unit": variant(1.0)}, "title"),
    "histograms": lambda: histograms({"log_px": scores("interp")["log_px"]}, "own", "title"),
    "scatter": lambda: scatter({"one": plane(3)}, names(3)),
    "robustness": lambda: robustness(ATTACKS, WORST, 0.9, "title"),
}
ODD: dict[str, Callable[[], Figure]] = {
    "confusion of many classes": lambda: confusion(matrix(21), names(21), "title"),
    "reliability of one certain image": lambda: reliability({"unit": variant(1e-9, n=1)}, "title"),
    "histograms of constants": lambda: histograms({"log_px": {"own": np.ones(3), "flat": np.ones(2)}}, "own", "title"),
    "scatter of many classes": lambda: scatter({"one": plane(21)}, names(21)),
    "scatter of samples alone, of some of the classes": lambda: scatter({"one": plane(2, n=9, sampled=9)}, names(4)),
}


AWKWARD = {
    "control characters": "\x1b[31m\x07\r\n\u202e\x9b",
    "mathematics": "$x^2_$",
    "markup": "<script>&amp;</script>",
    "500 characters": "x" * 500,
    "emoji": "\U0001f98a",
    "Chinese": "狐狸",
    "Arabic": "ثعلب",
    "a surrogate": "\ud800",
    "nothing": "",
    "an underscore": "_hidden",
}


def is_picture(path: Path) -> bool:
    if path.suffix == ".svg":
        return ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    with Image.open(path) as picture:
        picture.load()
        return picture.format == "PNG" and picture.convert("L").getextrema()[0] < 255


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN.keys())
def test_the_same_values_give_the_same_bytes_in_both_formats(draw: Callable[[], Figure], tmp_path: Path) -> None:
    first, again = (save(draw(), tmp_path / folder / "a.png") for folder in ("first", "again"))
    assert [path.name for path in first] == ["a.png", "a.svg"]
    for one, other in zip(first, again, strict=True):
        assert is_picture(one)
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("draw", ODD.values(), ids=ODD.keys())
def test_odd_values_are_drawn_too(draw: Callable[[], Figure], tmp_path: Path) -> None:
    draw().savefig(tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")


def test_other_values_give_other_bytes(tmp_path: Path) -> None:
    figures = [Figure(figsize=(1, 1)) for _ in range(2)]
    for i, figure in enumerate(figures):
        figure.text(0.5, 0.5, str(i))
    pairs = zip(*(save(figure, tmp_path / f"{i}.png") for i, figure in enumerate(figures)), strict=True)
    assert all(one.read_bytes() != other.read_bytes() for one, other in pairs)


@pytest.mark.parametrize(
    ("out", "stem"),
    [("new/folder/a.png", "a"), ("a.svg", "a"), ("a", "a"), ("other.v2.npz-test.png", "other.v2.npz-test"), ("a.v2", "a.v2")],
)
def test_both_formats_are_written_side_by_side(out: str, stem: str, tmp_path: Path) -> None:
    paths = save(Figure(), tmp_path / out)
    assert paths == [(tmp_path / out).parent / f"{stem}{suffix}" for suffix in (".png", ".svg")]
    assert sorted((tmp_path / out).parent.iterdir()) == paths


def test_dollars_in_a_name_are_dollars(tmp_path: Path) -> None:
    _, svg = save(confusion([[1, 0], [0, 1]], ["US$ and A$", r"$\nothing$"], "$title$"), tmp_path / "a.png")
    drawn = [text.strip() for text in ElementTree.parse(svg).getroot().itertext()]
    assert {"US$ and A$", r"$\nothing$", "$title$"} <= set(drawn)


def test_saving_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save(Figure(), tmp_path / "a.png")
    assert dict(mpl.rcParams) == before


def test_a_confusion_matrix_is_shaded_by_row_and_labelled_by_count() -> None:
    (axis,) = confusion([[3, 1, 0], [0, 2, 0], [0, 0, 0]], ["cat", "dog", "fox"], "what it is").axes
    assert np.array_equal(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])  # type: ignore[arg-type]
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axis.texts}
    assert written == {(0, 0): "3", (0, 1): "1", (1, 1): "2"}
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog", "fox"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("predicted", "true", "what it is")


@pytest.mark.parametrize(("k", "labelled"), [(20, True), (21, False)])
def test_beyond_twenty_classes_cells_and_axes_are_not_labelled(k: int, labelled: bool) -> None:
    (axis,) = confusion(matrix(k), names(k), "title").axes
    assert bool(axis.texts) == labelled
    assert (len(axis.get_xticklabels()) == k) == labelled


def bars(figure: Figure, row: int, column: int, n_columns: int) -> list[Rectangle]:
    return [patch for patch in figure.axes[row * n_columns + column].patches if isinstance(patch, Rectangle)]


def test_reliability_draws_accuracy_gap_and_share_of_every_bin_that_is_not_empty() -> None:
    variants = {"unit": variant(1.0), "gamma": variant(0.1)}
    figure = reliability(variants, "title")
    for column, (name, values) in enumerate(variants.items()):
        full = [b for b in values["bins"] if b["n"]]
        assert 0 < len(full) < BINS
        upper, lower = (bars(figure, row, column, 2) for row in (0, 1))
        accuracy, gap = upper[: len(full)], upper[len(full) :]
        assert [bar.get_x() for bar in accuracy] == pytest.approx([b["low"] for b in full])
        assert [bar.get_width() for bar in accuracy] == pytest.approx([1 / BINS] * len(full))
        assert [bar.get_height() for bar in accuracy] == pytest.approx([b["accuracy"] for b in full])
        assert [bar.get_y() + bar.get_height() for bar in gap] == pytest.approx([b["confidence"] for b in full])
        assert [bar.get_height() for bar in lower] == pytest.approx([b["n"] / 60 for b in full])
        assert f"ECE {values['ece']:.2%}" in figure.axes[column].get_title()
        assert figure.axes[column].get_title().startswith(f"{name}, softmax(logits / {values['scale']:.3g})")


def test_the_accuracy_of_each_bin_is_drawn_with_its_interval_where_the_result_has_one() -> None:
    values = variant(1.0)
    full = [b for b in values["bins"] if b["n"]]
    older = values | {"bins": [{key: value for key, value in b.items() if key != "ci95"} for b in values["bins"]]}
    axis, before = reliability({"new": values, "old": older}, "title").axes[:2]
    (lines,) = [lines for lines in axis.collections if isinstance(lines, LineCollection)]
    assert np.array([line[:, 1] for line in lines.get_segments()]) == pytest.approx(np.array([b["ci95"] for b in full]))
    assert len(before.patches) == len(axis.patches) and not before.collections


def test_histograms_stand_over_those_of_the_own_images_and_each_sums_to_one() -> None:
    values = scores("interp", "uniform")
    figure = histograms(values, "own", "title")
    assert len(figure.axes) == 4
    for axis in figure.axes:
        shares = [patch.get_data().values.sum() for patch in axis.patches if isinstance(patch, StepPatch)]
        assert shares == pytest.approx([1, 1])
    legends = [axis.get_legend() for axis in figure.axes[::2]]
    assert [[text.get_text() for text in legend.get_texts()] for legend in legends if legend] == [["own", "interp"], ["own", "uniform"]]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["log p(x)", "max p(y|x)"]


def test_a_set_far_away_leaves_the_others_their_range() -> None:
    near, far = np.linspace(0, 1, 50), np.linspace(900, 1000, 50)
    upper, lower = histograms({"log_px": {"own": near, "near": near, "far": far}}, "own", "title").axes
    assert upper.get_xlim()[1] < 2
    assert lower.get_xlim()[0] < 1 and lower.get_xlim()[1] > 900


def test_a_score_far_out_is_drawn_at_the_edge() -> None:
    values = {"log_px": {"own": np.append(np.linspace(0, 1, 999), 1e9), "other": np.linspace(0, 1, 1000)}}
    (axis,) = histograms(values, "own", "title").axes
    assert axis.get_xlim()[1] < 2


def test_a_scatter_has_every_point_once_real_ones_as_dots_and_samples_as_crosses() -> None:
    points, labels, sampled = plane(3)
    figure = scatter({"one": (points, labels, sampled)}, names(3))
    (axis,) = figure.axes
    dots, crosses = axis.collections[::2], axis.collections[1::2]
    for k, (real, drawn) in enumerate(zip(dots, crosses, strict=True)):
        assert isinstance(real, PathCollection) and isinstance(drawn, PathCollection)
        assert np.allclose(np.asarray(real.get_offsets()), points[(labels == k) & ~sampled])
        assert np.allclose(np.asarray(drawn.get_offsets()), points[(labels == k) & sampled])
        assert np.array_equal(real.get_facecolor()[0], drawn.get_edgecolor()[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names(3)


@pytest.mark.parametrize("k", [10, 11, 40])
def test_classes_have_colours_of_their_own(k: int) -> None:
    (axis,) = scatter({"one": plane(k, sampled=0)}, names(k)).axes
    assert len({tuple(dots.get_facecolor()[0]) for dots in axis.collections[::2]}) == k  # type: ignore[attr-defined]


@pytest.mark.parametrize(("k", "legends"), [(20, 1), (21, 0)])
def test_beyond_twenty_classes_there_is_no_legend(k: int, legends: int) -> None:
    assert len(scatter({"one": plane(k)}, names(k)).legends) == legends


def test_planes_stand_side_by_side() -> None:
    figure = scatter({"first": plane(3), "second": plane(3)}, names(3))
    assert [axis.get_title() for axis in figure.axes] == ["first", "second"]


def test_robustness_has_a_line_an_attack_over_eps_in_bytes() -> None:
    (axis,) = robustness(ATTACKS, WORST, 0.9, "title").axes
    lines = {str(line.get_label()): line for line in axis.lines}
    assert list(lines) == ["pgd (ce)", "pgd (margin)", "worst case", "clean"]
    for name, curve in (ATTACKS | {"worst case": WORST}).items():
        assert list(lines[name].get_xdata()) == pytest.approx([1, 2])  # type: ignore[arg-type]
        assert list(lines[name].get_ydata()) == list(curve.values())  # type: ignore[arg-type]
    assert list(lines["clean"].get_ydata()) == [0.9, 0.9]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", AWKWARD.values(), ids=AWKWARD.keys())
def test_a_class_may_have_any_name_two_even_the_same(name: str, tmp_path: Path) -> None:
    called = ["cat", name, name]
    drawn = [confusion(matrix(3), called, name), scatter({"one": plane(3)}, called), histograms(scores(name), "own", "title")]
    for i, figure in enumerate(drawn):
        assert all(map(is_picture, save(figure, tmp_path / f"{i}.png")))
    assert len(drawn[1].legends[0].get_texts()) == 3
