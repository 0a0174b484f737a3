from collections.abc import Callable
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax
from scipy.stats import binomtest, bootstrap, ttest_1samp
from torch import Tensor

from gmmcli.metrics.calibration import (
    BINS,
    calibration,
    calibration_protocol,
    calibration_values,
    calibration_warnings,
    equal_mass,
    equal_width,
    fit_temperature,
    temperature_interval,
    with_validation,
)
from gmmcli.metrics.intervals import wilson_interval
from gmmcli.vision import torchvision

FIGURES = ["ece", "mce", "ace", "nll", "brier"]


def answers(n: int, n_classes: int, temperature: float = 1.0, seed: int = 0, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from ``softmax(logits / temperature)``."""
    rng = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(n, n_classes, generator=rng, dtype=torch.float64)
    return z, torch.multinomial(torch.softmax(z / temperature, 1), 1, generator=rng).squeeze(1)


def certain(*said: tuple[float, bool]) -> tuple[Tensor, Tensor]:
    """Log probabilities of 50 classes, the first the most likely at the given confidence, and whether it is the label."""
    confidence = torch.tensor([c for c, _ in said], dtype=torch.float64)[:, None]
    others = ((1 - confidence) / 49).expand(-1, 49)
    return torch.cat([confidence, others], 1).log(), torch.tensor([0 if right else 7 for _, right in said])


SIX = [(0.88, True), (0.88, True), (0.88, True), (0.88, False), (0.62, True), (0.62, False)]


def test_two_bins_by_hand() -> None:
    values = calibration(*certain(*SIX))
    assert values["ece"] == pytest.approx((4 * abs(0.75 - 0.88) + 2 * abs(0.5 - 0.62)) / 6)
    assert values["mce"] == pytest.approx(0.13)
    filled = {i: values["bins"][i] for i in range(BINS) if values["bins"][i]["n"]}
    assert list(filled) == [12, 17]
    assert [filled[i].pop("ci95") for i in (12, 17)] == [list(wilson_interval(1, 2)), list(wilson_interval(3, 4))]
    assert filled[12] == pytest.approx({"low": 0.6, "high": 0.65, "n": 2, "confidence": 0.62, "accuracy": 0.5})
    assert filled[17] == pytest.approx({"low": 0.85, "high": 0.9, "n": 4, "confidence": 0.88, "accuracy": 0.75})


def test_fewer_images_than_bins_have_an_ace_of_one_image_a_bin() -> None:
    assert calibration(*certain(*SIX))["ace"] == pytest.approx((3 * 0.12 + 0.88 + 0.38 + 0.62) / 6)


def test_ace_by_hand_with_two_images_a_bin() -> None:
    """Pairs of confidences c and c + 0.01, one of the two right; shuffled."""
    pairs = np.linspace(0.1, 0.9, BINS)
    said = [(c, True) for c in pairs] + [(c + 0.01, False) for c in pairs]
    order = np.random.default_rng(0).permutation(len(said))
    values = calibration(*certain(*(said[i] for i in order)))
    assert values["ace"] == pytest.approx(np.abs(0.5 - pairs - 0.005).mean())


def test_gaps_of_both_signs_in_one_bin_cancel_and_in_two_bins_add_up() -> None:
    together = calibration(*certain((0.51, True), (0.51, False), (0.52, True), (0.52, False)))
    apart = calibration(*certain((0.3, True), (0.7, False)))
    assert together["ece"] == pytest.approx(0.015)
    assert apart["ece"] == pytest.approx(0.7)


def test_right_as_often_as_confident_is_calibrated() -> None:
    values = calibration(*certain(*[(0.75, True)] * 15, *[(0.75, False)] * 5))
    assert (values["ece"], values["mce"]) == pytest.approx((0, 0), abs=1e-15)


@pytest.mark.parametrize("k", range(BINS + 1))
def test_an_edge_belongs_to_the_bin_below_it(k: int) -> None:
    edge = k / BINS
    around = torch.tensor([np.nextafter(edge, 0), edge, min(1, np.nextafter(edge, 1))], dtype=torch.float64)
    below, above = max(k - 1, 0), min(k, BINS - 1)
    assert equal_width(around).tolist() == [below, below, above]


@pytest.mark.parametrize(("confidence", "expected"), [(0.0, 0), (0.05, 0), (0.55, 10), (1.0, 19)])
def test_well_known_edges(confidence: float, expected: int) -> None:
    assert equal_width(torch.tensor([confidence], dtype=torch.float64)).tolist() == [expected]


@given(st.integers(1, 90), st.integers(0, 2**31))
@settings(derandomize=True, max_examples=50)
def test_bins_of_equal_mass_differ_by_one_image_at_most_and_are_in_order(n: int, seed: int) -> None:
    confidence = torch.randint(8, (n,), generator=torch.Generator().manual_seed(seed)) / 8  # with ties
    bins = equal_mass(confidence)
    sizes = bins.bincount()
    assert len(sizes) == min(BINS, n) and sizes.max() - sizes.min() <= 1
    assert bool((bins[confidence.argsort(stable=True)].diff() >= 0).all())


@pytest.fixture(scope="module")
def calibration_error() -> Callable[..., Tensor]:
    torchvision("transforms")  # which torchmetrics imports
    from torchmetrics.functional.classification import multiclass_calibration_error

    return multiclass_calibration_error  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("figure", "norm"), [("ece", "l1"), ("mce", "max")])
def test_ece_and_mce_are_those_of_torchmetrics(
    figure: str, norm: str, temperature: float, seed: int, calibration_error: Callable[..., Tensor]
) -> None:
    logits, labels = answers(400, 5, temperature, seed)
    log_probs = logits.log_softmax(1)
    expected = calibration_error(log_probs.exp(), labels, num_classes=5, n_bins=BINS, norm=norm)
    assert calibration(log_probs, labels)[figure] == pytest.approx(float(expected), rel=1e-5)  # float32 within


@given(st.integers(1, 120), st.integers(2, 12), st.floats(0.1, 10), st.integers(0, 2**31))
@settings(derandomize=True, max_examples=25)
def test_the_bins_of_the_diagram_hold_every_image_and_give_the_figures(n: int, n_classes: int, temperature: float, seed: int) -> None:
    logits, labels = answers(n, n_classes, temperature, seed)
    values = calibration(logits.log_softmax(1), labels)
    filled = [part for part in values["bins"] if part["n"]]
    gaps = [abs(part["accuracy"] - part["confidence"]) for part in filled]
    assert sum(part["n"] for part in filled) == n
    assert sum(part["n"] * part["accuracy"] for part in filled) == pytest.approx(int((logits.argmax(1) == labels).sum()))
    assert all(part["low"] - 1e-12 <= part["confidence"] <= part["high"] + 1e-12 for part in filled)
    assert all(part["confidence"] is part["accuracy"] is part["ci95"] is None for part in values["bins"] if not part["n"])
    for part in filled:
        exact = binomtest(round(part["n"] * part["accuracy"]), part["n"]).proportion_ci(method="wilson")
        assert part["ci95"] == pytest.approx([exact.low, exact.high], abs=1e-12)
    assert values["ece"] == pytest.approx(sum(part["n"] * gap for part, gap in zip(filled, gaps, strict=True)) / n)
    assert values["mce"] == pytest.approx(max(gaps))
    assert values["ece"] <= values["mce"] + 1e-12


@cache
def measured(n: int, temperature: float) -> dict[str, Any]:
    logits, labels = answers(n, 10)
    return calibration((logits / temperature).log_softmax(1), labels)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("temperature", [1.0, 3.0])  # calibrated, and far too unsure
@pytest.mark.parametrize("n", [200, 10_000])
def test_intervals_hold_their_figure(n: int, temperature: float, figure: str) -> None:
    values = measured(n, temperature)
    low, high = values[f"{figure}_ci95"]
    assert low <= values[figure] <= high
    assert low < high


@pytest.mark.parametrize("figure", ["ece", "ace"])
def test_one_image_has_the_same_gap_in_every_replicate_that_holds_it(figure: str) -> None:
    values = calibration(*certain((0.88, False)))
    assert values[f"{figure}_ci95"] == pytest.approx([0.88, 0.88])


def test_a_bin_of_one_image_makes_no_certain_mce() -> None:
    """Of 360 confident images one is unsure and wrong: no bootstrap replicate that holds it has another largest gap."""
    values = calibration(*certain(*[(0.99, True)] * 356, *[(0.99, False)] * 3, (0.74, False)))
    low, high = values["mce_ci95"]
    assert values["mce"] == pytest.approx(0.74)
    assert low < 0.05  # the full bin may be right, and of one image nothing is known
    assert 0.74 <= high < 0.75  # a bin at 74% can be wrong by no more


def test_the_interval_of_mce_is_that_of_the_exact_intervals_of_its_bins() -> None:
    values = calibration(*certain(*[(0.88, True)] * 40, *[(0.88, False)] * 60, *[(0.62, True)] * 50, *[(0.62, False)] * 50))
    spans = [(binomtest(k, 100).proportion_ci(0.975, method="exact"), said) for k, said in ((40, 0.88), (50, 0.62))]
    expected = [max(said - span.high for span, said in spans), max(said - span.low for span, said in spans)]
    assert values["mce_ci95"] == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "least"), [(1.0, 33), (2.0, 37)])
def test_the_intervals_of_gaps_cover_what_endless_images_would_give(temperature: float, least: int) -> None:
    """Of forty draws of 300 images; calibrated, where the true ECE is 0 and every figure above it, and too sure."""
    spread, covered = 4.0, {"ece": 0, "mce": 0}
    logits, labels = answers(50_000, 5, temperature, seed=1000, spread=spread)
    whole = calibration(logits.log_softmax(1), labels)
    true = {name: 0.0 if temperature == 1 else whole[name] for name in covered}
    for seed in range(40):
        logits, labels = answers(300, 5, temperature, seed, spread)
        values = calibration(logits.log_softmax(1), labels)
        for name in covered:
            low, high = values[f"{name}_ci95"]
            covered[name] += low <= true[name] <= high
            assert low < values[name] <= high  # at the end where a bin is as wrong as it can be
    assert covered["ece"] >= least
    assert covered["mce"] >= 37


def test_more_images_narrow_the_intervals() -> None:
    widths = [[high - low for low, high in (measured(n, 3.0)[f"{figure}_ci95"] for figure in FIGURES)] for n in (200, 10_000)]
    assert all(many < few for few, many in zip(*widths, strict=True))


def test_saturated_is_the_share_of_confidences_that_are_1_in_float32() -> None:
    ulp = 2.0**-24  # below 1 in float32; half of it is the tie that rounds to 1
    confidences = torch.tensor([1.0, 1 - ulp / 4, 1 - 0.9 * ulp, 0.5], dtype=torch.float64)
    log_probs = torch.stack([confidences, 1 - confidences], 1).log()
    assert calibration(log_probs.clamp(min=-1e3), torch.zeros(4, dtype=torch.long))["saturated"] == 0.5


def information(logits: Tensor, temperature: float) -> float:
    """Fisher's, of 1/T: the variance of the logits under ``softmax(logits / T)``, summed over the images."""
    p = torch.softmax(logits / temperature, 1)
    return float(((p * logits.square()).sum(1) - (p * logits).sum(1).square()).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 200.0])
def test_the_temperature_that_the_labels_were_drawn_at_is_found(temperature: float) -> None:
    logits, labels = answers(10_000, 5, temperature, spread=2 * temperature)
    found = fit_temperature(logits.float(), labels)
    assert found is not None
    error = 1 / sqrt(information(logits, temperature))
    assert abs(1 / found - 1 / temperature) < 3 * error
    assert error < 0.02 / temperature


@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.3, 5))
@settings(derandomize=True, max_examples=15)
def test_the_temperature_is_the_minimum_that_scipy_finds(seed: int, n_classes: int, temperature: float) -> None:
    logits, labels = answers(200, n_classes, temperature, seed)

    def nll(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(log_temperature), labels))

    expected = np.exp(minimize_scalar(nll, bounds=np.log([1e-2, 1e3]), method="bounded", options={"xatol": 1e-7}).x)
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_temperature_scales_with_the_logits(factor: float) -> None:
    logits, labels = answers(500, 4)
    unscaled = fit_temperature(logits, labels)
    assert unscaled is not None
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * unscaled, rel=1e-9)


def test_without_a_wrong_answer_there_is_no_temperature() -> None:
    logits, _ = answers(50, 4)
    labels = logits.argmax(1)
    assert fit_temperature(logits, labels) is None
    labels[0] = (labels[0] + 1) % 4
    assert fit_temperature(logits, labels) is not None


def wrong_model(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Answers that no temperature makes right: a third of the images are labelled at random, whatever the logits."""
    logits, labels = answers(n, 4, 0.5, seed)
    rng = np.random.default_rng(seed)
    return logits, torch.where(torch.from_numpy(rng.random(n) < 1 / 3), torch.from_numpy(rng.integers(0, 4, n)), labels)


@pytest.mark.parametrize("factory", [answers, wrong_model])
def test_the_ends_of_the_temperatures_interval_are_where_students_statistic_of_the_slope_is_too_large(
    factory: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    logits, labels = answers(400, 4, 3.0) if factory is answers else wrong_model(400)
    z, n = logits.numpy(), len(labels)

    def statistic(log_temperature: float) -> float:
        slopes = (softmax(z / np.exp(log_temperature), axis=1) * z).sum(1) - z[np.arange(n), labels.numpy()]
        return float(ttest_1samp(slopes, 0).statistic * np.sqrt(n / (n - 1)))  # the standard deviation over n, not n - 1

    fitted = fit_temperature(logits, labels)
    assert fitted is not None
    ends = [
        brentq(lambda t, z=z: statistic(t) - z, np.log(fitted) - 3, np.log(fitted) + 3) for z in (1.959963984540054, -1.959963984540054)
    ]
    assert temperature_interval(logits, labels) == pytest.approx(np.exp(ends).tolist(), rel=1e-9)


@pytest.mark.parametrize("factory", [answers, wrong_model])
def test_the_interval_of_the_temperature_is_that_of_a_bootstrap(factory: Callable[..., tuple[Tensor, Tensor]]) -> None:
    logits, labels = (one.numpy() for one in (answers(300, 4, 3.0) if factory is answers else wrong_model(300)))

    def best(rows: np.ndarray) -> float:
        def nll(inverse: float) -> float:
            p = softmax(inverse * logits[rows], axis=1)
            return -float(np.log(p[np.arange(len(rows)), labels[rows]]).mean())

        return float(minimize_scalar(nll, bounds=(0.01, 5), method="bounded").x)

    drawn = bootstrap((np.arange(300),), best, n_resamples=300, vectorized=False, method="percentile", rng=0).confidence_interval
    interval = temperature_interval(torch.from_numpy(logits), torch.from_numpy(labels))
    assert interval is not None
    width = drawn.high - drawn.low
    assert [1 / interval[1], 1 / interval[0]] == pytest.approx([drawn.low, drawn.high], abs=width / 5)


def test_the_interval_covers_the_temperature_that_the_labels_were_drawn_at() -> None:
    intervals = [temperature_interval(*answers(200, 4, 2.0, seed)) for seed in range(100)]
    covered = sum(ends is not None and ends[0] <= 2.0 <= ends[1] for ends in intervals)
    assert 89 <= covered <= 99


def test_one_wrong_image_leaves_open_how_low_the_temperature_is() -> None:
    logits, _ = answers(200, 4)
    labels = logits.argmax(1)
    assert temperature_interval(logits, labels) is None
    labels[0] = logits[0].argmin()
    low, high = temperature_interval(logits, labels) or (None, None)
    fitted = fit_temperature(logits, labels)
    assert low == pytest.approx(1e-6) and high and fitted and fitted < high < 1e6


def test_answers_worse_than_chance_are_best_not_believed_at_all() -> None:
    logits, _ = answers(50, 4)
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(1e6, rel=1e-6)


def test_a_fitted_temperature_mends_the_calibration_of_other_images() -> None:
    logits, labels = answers(4000, 10, temperature=4.0, spread=8.0)
    temperature = fit_temperature(logits[:2000], labels[:2000])
    variants = calibration_values(logits[2000:], labels[2000:], 1.0, temperature)["variants"]
    assert all(variants["temperature"][figure] < variants["unit"][figure] / 2 for figure in ("ece", "ace"))
    assert all(variants["temperature"][figure] < variants["unit"][figure] for figure in ("nll", "brier"))


@pytest.mark.parametrize(("temperature", "used"), [(2.5, 2.5), (None, 7.0)])
def test_three_scales_side_by_side_and_gammas_at_the_top(temperature: float | None, used: float) -> None:
    logits, labels = answers(300, 4)
    values = calibration_values(logits.float(), labels, 7.0, temperature)
    z = logits.float().double()
    expected = {"temperature": used, "gamma": 7.0, "unit": 1.0}
    assert list(values["variants"]) == list(expected)  # the calibrated figures are read first
    assert values["variants"] == {
        name: {"scale": scale, **calibration((z / scale).log_softmax(1), labels)} for name, scale in expected.items()
    }
    assert values["temperature"] == used
    gamma = values["variants"]["gamma"]
    assert {key: gamma[key] for key in gamma.keys() - {"scale", "bins"}} == {
        key: values[key] for key in values.keys() - {"temperature", "variants"}
    }


def test_each_scale_is_also_judged_on_the_validation_images_and_nothing_else_changes() -> None:
    values = calibration_values(*answers(300, 4), 7.0, 2.5)
    logits, labels = answers(150, 4, temperature=3.0, seed=1)
    judged = with_validation(values, logits.float(), labels)
    for name, scale in (("unit", 1.0), ("gamma", 7.0), ("temperature", 2.5)):
        confidence, predicted = (logits.float().double() / scale).softmax(1).max(1)
        bins = np.ceil(confidence.numpy() * BINS)
        gaps = ((predicted == labels).double() - confidence).numpy()
        by_hand = sum(abs(gaps[bins == i].sum()) for i in range(1, BINS + 1)) / 150
        low, high = judged["variants"][name].pop("validation_ece_ci95")
        assert low < by_hand < high
        assert judged["variants"][name].pop("validation_ece") == pytest.approx(by_hand)
    interval = temperature_interval(logits.float(), labels)
    assert judged.pop("temperature_ci95") == judged["variants"]["temperature"].pop("scale_ci95") == interval
    assert judged == values


def test_where_no_temperature_can_be_fitted_it_has_no_interval() -> None:
    logits, _ = answers(150, 4)
    values = with_validation(calibration_values(logits, logits.argmax(1), 7.0, None), logits, logits.argmax(1))
    assert "temperature_ci95" not in values and "scale_ci95" not in values["variants"]["temperature"]


def test_the_protocol_tells_how_the_temperature_was_had() -> None:
    protocol = calibration_protocol(3.5, 180, fitted=False)
    assert (protocol["gamma2"], protocol["n_validation"], protocol["temperature_fitted"]) == (3.5, 180, False)
    assert f"{BINS} of equal width" in protocol["bins"]
    assert all(word in protocol["intervals"] for word in ("symmetric bootstrap", "exact intervals", "Gaffke", "Wilson", "score test"))


@pytest.mark.parametrize(
    ("saturated", "warned"),
    [
        ({"unit": 0.0, "gamma": 0.0, "temperature": 0.0}, []),
        ({"unit": 0.01, "gamma": 0.01, "temperature": 0.01}, []),
        ({"unit": 0.011, "gamma": 0.0, "temperature": 0.0}, ["scale unit, 1.1%"]),
        ({"unit": 1.0, "gamma": 0.234, "temperature": 0.0}, ["scale unit, 100.0%", "scale gamma, 23.4%"]),
    ],
)
@pytest.mark.parametrize("fitted", [True, False])
def test_warnings_name_saturated_scales_and_a_temperature_not_fitted(saturated: dict[str, float], warned: list[str], fitted: bool) -> None:
    found = calibration_warnings({"variants": {name: {"saturated": share} for name, share in saturated.items()}}, fitted)
    expected = warned + ["no temperature can be fitted"] * (not fitted)
    assert len(found) == len(expected)
    assert all(part in warning for part, warning in zip(expected, found, strict=True))


def test_a_saturated_softmax_is_warned_of() -> None:
    logits, labels = answers(100, 4)
    values = calibration_values(1e6 * logits, labels, 1e6, None)
    assert values["variants"]["unit"]["saturated"] == 1
    assert values["variants"]["gamma"]["saturated"] == 0
    (warning,) = calibration_warnings(values, fitted=True)
    assert "scale unit, 100.0%" in warning
