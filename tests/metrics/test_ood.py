from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from gmmcli.metrics import ood
from gmmcli.metrics.intervals import percentiles, resampled
from gmmcli.metrics.ood import AT_A_TIME, auroc_interval, detection, ood_protocol, ood_values

Oracle = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]


def fpr95(inside: np.ndarray, scores: np.ndarray, weights: np.ndarray | None) -> float:
    fpr, tpr, _ = roc_curve(inside, scores, sample_weight=weights, drop_intermediate=False)
    return float(fpr[tpr >= 0.95].min())


ORACLES: dict[str, Oracle] = {
    "auroc": lambda inside, scores, weights: roc_auc_score(inside, scores, sample_weight=weights),
    "aupr_in": lambda inside, scores, weights: average_precision_score(inside, scores, sample_weight=weights),
    "aupr_out": lambda inside, scores, weights: average_precision_score(~inside, -scores, sample_weight=weights),
    "fpr95": fpr95,
}


def figures(inside: Tensor, outside: Tensor) -> dict[str, float]:
    return {name: value for name, value in detection(inside, outside).items() if name in ORACLES}


def scikit_learns(inside: Tensor, outside: Tensor, weights: np.ndarray | None = None) -> dict[str, float]:
    is_inside, scores = np.arange(len(inside) + len(outside)) < len(inside), torch.cat([inside, outside]).numpy()
    return {name: oracle(is_inside, scores, weights) for name, oracle in ORACLES.items()}


def shifted(n_inside: int, n_outside: int, by: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    inside, outside = (torch.randn(n, generator=rng, dtype=torch.float64) for n in (n_inside, n_outside))
    return inside + by, outside


@pytest.mark.parametrize(("n_inside", "n_outside"), [(1, 1), (300, 300), (40, 300), (300, 40), (19, 7), (20, 7), (21, 7)])
@pytest.mark.parametrize("by", [-1.0, 0.0, 1.0, 3.0])
def test_figures_are_scikit_learns(n_inside: int, n_outside: int, by: float) -> None:
    inside, outside = shifted(n_inside, n_outside, by)
    assert figures(inside, outside) == pytest.approx(scikit_learns(inside, outside), rel=1e-12, abs=1e-15)


scores = st.lists(st.integers(-3, 3) | st.floats(-3, 3), min_size=1, max_size=40).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@given(scores, scores)
@settings(derandomize=True, max_examples=30)
def test_figures_are_scikit_learns_with_ties(inside: Tensor, outside: Tensor) -> None:
    assert figures(inside, outside) == pytest.approx(scikit_learns(inside, outside), rel=1e-12, abs=1e-15)


@given(scores, scores)
@settings(derandomize=True, max_examples=20)
def test_the_two_sets_change_places_when_the_score_changes_sign(inside: Tensor, outside: Tensor) -> None:
    there, back = detection(inside, outside), detection(-outside, -inside)
    assert back["auroc"] == pytest.approx(there["auroc"])
    assert (back["aupr_in"], back["aupr_out"]) == pytest.approx((there["aupr_out"], there["aupr_in"]))


def test_intervals_are_those_of_scikit_learns_weighted_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = shifted(30, 25, 1.0)
    inside, outside = inside.round(decimals=1), outside.round(decimals=1)
    few = [resampled(n, seed)[: AT_A_TIME + 10] for seed, n in enumerate((30, 25))]  # scikit-learn takes its time
    monkeypatch.setattr(ood, "resampled", lambda _, seed: few[seed])
    replicates = [scikit_learns(inside, outside, row) for row in torch.cat(few, 1).numpy()]
    found = detection(inside, outside)
    for name in ORACLES:
        expected = percentiles(torch.tensor([replicate[name] for replicate in replicates], dtype=torch.float64))
        assert found[f"{name}_ci95"] == pytest.approx(expected, rel=1e-12), name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", [0.0, 1.0, 3.0])
def test_intervals_hold_their_figure_and_the_truth(by: float, seed: int) -> None:
    found = detection(*shifted(1000, 1000, by, seed))
    for name in ORACLES:
        low, high = found[f"{name}_ci95"]
        assert 0 <= low <= found[name] <= high <= 1, name
        assert low < high, name
    exact = {"auroc": norm.cdf(by / np.sqrt(2)), "fpr95": norm.sf(norm.ppf(0.05, loc=by))}
    assert all(found[f"{name}_ci95"][0] < value < found[f"{name}_ci95"][1] for name, value in exact.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_inside", "n_outside"), [(1, 1), (7, 13), (100, 100)])
def test_sets_that_do_not_overlap_are_told_apart(n_inside: int, n_outside: int, dtype: torch.dtype) -> None:
    low, high = torch.arange(n_outside, dtype=dtype), 1000 + torch.arange(n_inside, dtype=dtype)
    assert figures(high, low) == pytest.approx({"auroc": 1.0, "aupr_in": 1.0, "aupr_out": 1.0, "fpr95": 0.0})


def test_a_score_the_wrong_way_round_lets_every_other_image_in() -> None:
    found = figures(torch.arange(20.0), 100 + torch.arange(20.0))
    assert (found["auroc"], found["fpr95"]) == (0.0, 1.0)


def test_a_score_that_says_nothing_is_a_coin() -> None:
    assert figures(torch.zeros(30), torch.zeros(10)) == {"auroc": 0.5, "aupr_in": 0.75, "aupr_out": 0.25, "fpr95": 1.0}


def test_the_threshold_of_fpr95_lets_in_exactly_95_percent_where_it_can() -> None:
    """The nineteenth of twenty, at score 1, and with it every other image but those below 1."""
    outside = torch.tensor([1.5, 1.0, 0.9, 0.1])
    assert figures(torch.arange(20.0), outside)["fpr95"] == 0.5
    assert figures(torch.arange(20.0)[1:], outside)["fpr95"] == 0.5  # 18 of 19 are too few
    assert figures(torch.arange(18.0), outside)["fpr95"] == 1.0


def test_only_the_order_of_scores_matters() -> None:
    inside, outside = shifted(60, 50, 0.7)
    assert detection(inside.exp(), outside.exp()) == detection(inside, outside)


def test_replicates_without_an_image_on_the_inside_are_left_out() -> None:
    """Both others score above the one image inside: whichever are drawn, the threshold that lets it in lets them in."""
    found = detection(torch.tensor([-1.0]), torch.tensor([1.0, 0.0]))
    assert (found["fpr95"], found["fpr95_ci95"]) == (1.0, pytest.approx([0.025**0.5, 1.0]))


def scored(n: int, by: float, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {score: torch.randn(n, generator=rng, dtype=torch.float64) + by for score in ("mass", "log_px", "max_py")}


def test_every_score_is_measured_on_every_set() -> None:
    inside, others = scored(80, 1.0, 0), {"noise": scored(50, 0.0, 1), "faces": scored(60, 0.5, 2)}
    found, means = ood_values(inside, others)
    assert list(found) == ["noise", "faces"]
    for name, other in others.items():
        assert list(found[name]) == ["mass", "log_px", "max_py"]
        for score, values in found[name].items():
            one = detection(inside[score], other[score])
            assert {key: values[key] for key in ("auroc", "fpr95")} == {key: one[key] for key in ("auroc", "fpr95")}
            assert name != "noise" or values == one
    for score, mean in means.items():
        assert mean["auroc"] == pytest.approx((found["noise"][score]["auroc"] + found["faces"][score]["auroc"]) / 2)


def test_the_interval_of_a_mean_over_sets_is_as_wide_as_means_scatter() -> None:
    """The sets share the images of the run, so that the mean's error does not fall with their number."""
    drawn = []
    for seed in range(40):
        inside, others = scored(60, 0.5, 100 * seed), {str(i): scored(60, 0.0, 100 * seed + i) for i in (1, 2, 3)}
        drawn.append(ood_values(inside, others)[1]["log_px"])
    claimed = sum(one["auroc_ci95"][1] - one["auroc_ci95"][0] for one in drawn) / len(drawn) / (2 * 1.96)
    assert 0.75 < claimed / float(torch.tensor([one["auroc"] for one in drawn]).std()) < 1.35


def hanley_mcneil(auroc: np.ndarray, n_inside: int, n_outside: int) -> np.ndarray:
    """The standard errors of AUROCs (1982, Eq. 1), both numbers less one replaced by their mean."""
    q1, q2, mean = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc), (n_inside + n_outside) / 2 - 1
    variance = auroc * (1 - auroc) + mean * (q1 - auroc**2) + mean * (q2 - auroc**2)
    return np.sqrt(variance / (n_inside * n_outside))


@pytest.mark.parametrize("auroc", [0.0, 0.02, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("n_inside", "n_outside"), [(1, 1), (7, 30), (1000, 900)])
def test_newcombes_interval_holds_the_aurocs_within_196_of_their_standard_errors(auroc: float, n_inside: int, n_outside: int) -> None:
    grid = np.linspace(0, 1, 20_001)[1:-1]
    within = grid[np.abs(grid - auroc) <= norm.ppf(0.975) * hanley_mcneil(grid, n_inside, n_outside)]
    low, high = auroc_interval(auroc, n_inside, n_outside)
    assert (low, high) == pytest.approx((min([*within, auroc]), max([*within, auroc])), abs=1e-4)


@pytest.mark.parametrize("n", [5, 200])
def test_perfect_separation_is_not_certain(n: int) -> None:
    """Once [1.000, 1.000]: the bootstrap of a perfect order has no width."""
    found = detection(torch.arange(n) + 1000.0, torch.arange(n) + 0.0)
    assert (found["auroc"], found["fpr95"]) == (1.0, 0.0)
    assert found["auroc_ci95"] == auroc_interval(1.0, n, n) and found["auroc_ci95"][0] < 1 == found["auroc_ci95"][1]
    assert found["fpr95_ci95"] == pytest.approx([0.0, 1 - 0.025 ** (1 / n)])
    assert found["aupr_in_ci95"] is found["aupr_out_ci95"] is None


def test_an_fpr95_of_one_is_not_certain() -> None:
    found = detection(torch.arange(20.0), 100 + torch.arange(30.0))
    assert (found["auroc"], found["fpr95"]) == (0.0, 1.0)
    assert found["fpr95_ci95"] == pytest.approx([0.025 ** (1 / 30), 1.0])
    assert 0 == found["auroc_ci95"][0] < found["auroc_ci95"][1]


def test_a_mean_over_a_perfectly_separated_set_is_not_more_certain_than_its_sets() -> None:
    inside = {"x": torch.arange(50.0)}
    found, means = ood_values(inside, {"far": {"x": torch.arange(40.0) - 100}, "near": {"x": torch.arange(40.0) - 10}})
    far, near, mean = found["far"]["x"], found["near"]["x"], means["x"]
    assert mean["auroc"] == pytest.approx((1 + near["auroc"]) / 2)
    assert mean["auroc_ci95"] == pytest.approx([(a + b) / 2 for a, b in zip(far["auroc_ci95"], near["auroc_ci95"], strict=True)])
    assert mean["aupr_in_ci95"] is None


def test_the_protocol_tells_the_orientation_and_the_variance() -> None:
    protocol = ood_protocol(3.5)
    assert protocol["gamma2"] == 3.5
    assert protocol["orientation"] == "high score = in-distribution"
