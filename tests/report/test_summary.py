from math import sqrt

import pytest

from gmmcli.metrics.metric import Estimate
from gmmcli.report.catalogue import FINISHED, MINUTES, Quantity, format_value
from gmmcli.report.summary import Summary, format_summary, summarise

SHARE = Quantity("accuracy", "accuracy", "")
ERROR = Quantity("ece", "ECE", "", "low")
LOSS = Quantity("loss", "loss", "", "low", "")
AUROC = Quantity("ood", "AUROC", "", unit="AUROC")
Z = 1.959963984540054


def test_one_seed_has_its_own_interval_over_images() -> None:
    assert summarise(SHARE, [Estimate(0.5, (0.4, 0.55))]) == (0.5, None, 1, pytest.approx((0.4, 0.55)), "images")


def test_one_seed_without_an_interval_has_none() -> None:
    assert summarise(SHARE, [Estimate(0.988)]) == (0.988, None, 1, None, "")


def test_several_seeds_without_intervals_have_one_over_seeds() -> None:
    found = summarise(LOSS, [Estimate(1.0), Estimate(2.0), Estimate(3.0)])
    assert (found.mean, found.std, found.over) == (2.0, 1.0, "seeds")
    assert found.interval == pytest.approx((2 - Z, 2 + Z))


def test_the_variances_between_seeds_and_within_them_add() -> None:
    within = [0.02, 0.04, 0.03]  # standard errors over images
    figures = [Estimate(value, (value - Z * error, value + Z * error)) for value, error in zip((0.5, 0.6, 0.55), within, strict=True)]
    found = summarise(SHARE, figures)
    total = 0.05**2 + sum(error**2 for error in within) / 3
    assert found.interval == pytest.approx((0.55 - Z * sqrt(total), 0.55 + Z * sqrt(total)))
    assert found.over == "seeds and images"


def test_each_side_of_an_interval_is_widened_by_itself() -> None:
    figures = [Estimate(0.9, (0.7, 0.95)), Estimate(0.9, (0.7, 0.95))]
    assert summarise(SHARE, figures).interval == pytest.approx((0.7, 0.95))  # the seeds agree: nothing between them


def test_seeds_that_agree_and_have_no_intervals_prove_nothing() -> None:
    assert summarise(SHARE, [Estimate(0.0), Estimate(0.0)]).interval is None


@pytest.mark.parametrize(("metric", "ends"), [(SHARE, (0.0, 1.0)), (AUROC, (0.0, 1.0)), (MINUTES, (0.0, 0.5 + Z * sqrt(0.5)))])
def test_an_interval_stays_where_figures_can_be(metric: Quantity, ends: tuple[float, float]) -> None:
    assert summarise(metric, [Estimate(0.0), Estimate(1.0)]).interval == pytest.approx(ends)


def test_of_trainings_the_share_that_ended_has_wilsons_interval() -> None:
    found = summarise(FINISHED, [Estimate(1.0), Estimate(0.0)])
    assert (found.mean, found.over, found.interval) == (0.5, "trainings", pytest.approx((0.0945, 0.9055), abs=1e-4))


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ((0.4, 0.6), (0.6, 0.7), True),
        ((0.4, 0.6), (0.61, 0.7), False),
        ((0.4, 0.6), None, True),
        (None, None, True),
    ],
)
def test_figures_may_be_as_good_unless_both_intervals_are_known_and_apart(
    one: tuple[float, float] | None, other: tuple[float, float] | None, overlap: bool
) -> None:
    first, second = (Summary(0.5, None, 1, interval, "images") for interval in (one, other))
    assert first.overlaps(second) == second.overlaps(first) == overlap


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (SHARE, 0.9408, "94.1%"),
        (SHARE, 1.0, "100.0%"),
        (ERROR, 0.0133, "1.33%"),
        (LOSS, 0.1234, "0.123"),
        (LOSS, 1.686, "1.69"),
        (LOSS, 12345.6, "12346"),
        (LOSS, -0.5, "-0.500"),
        (LOSS, -2.0, "-2.00"),
    ],
)
def test_a_value_is_said_as_people_write_it(metric: Quantity, value: float, text: str) -> None:
    assert format_value(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "summary", "text"),
    [
        (SHARE, Summary(0.9, 0.015, 3, (0.8, 0.95), "seeds and images"), "90.0% ± 1.5% (80.0% to 95.0% over seeds and images)"),
        (SHARE, Summary(0.9, None, 1, (0.85, 0.925), "images"), "90.0% (85.0% to 92.5%)"),
        (LOSS, Summary(1.5, None, 1, None, ""), "1.50 (no interval)"),
        (LOSS, Summary(1.5, 0.25, 2, (1.0, 2.0), "seeds"), "1.50 ± 0.250 (1.00 to 2.00 over seeds)"),
    ],
)
def test_a_summary_says_how_far_it_is_known_and_by_what(metric: Quantity, summary: Summary, text: str) -> None:
    assert format_summary(metric, summary) == text
