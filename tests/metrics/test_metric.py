from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from extension import install
from gmmcli.errors import RecipeError
from gmmcli.metrics.metric import METRICS, SAMPLE_METRICS, Estimate, Metric, with_metrics
from gmmcli.registry import Registry, installed


def registry(**values: Estimate) -> Registry[Metric[[float]]]:
    """Metrics that return these estimates, each times what is measured."""

    def metric(estimate: Estimate) -> Metric[[float]]:
        def measure(factor: float) -> Estimate:
            return Estimate(factor * estimate.value, estimate.ci95 and (factor * estimate.ci95[0], factor * estimate.ci95[1]))

        return Metric("label", measure)

    return Registry("metrics", {key: metric(estimate) for key, estimate in values.items()})


def test_registered_metrics_stand_behind_a_results_own_values_with_their_intervals() -> None:
    values = with_metrics({"accuracy": 0.5}, registry(top5=Estimate(0.25, (0.125, 0.5)), kappa=Estimate(-0.25)), 2.0)
    assert values == {"accuracy": 0.5, "top5": 0.5, "top5_ci95": [0.25, 1.0], "kappa": -0.5}
    assert next(iter(values)) == "accuracy"


def test_without_registered_metrics_values_stay_as_they_are() -> None:
    assert with_metrics({"accuracy": 0.5}, registry(), 2.0) == {"accuracy": 0.5}


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_value_that_is_not_finite_is_none_as_json_has_no_other_word(value: float) -> None:
    assert with_metrics({}, registry(odd=Estimate(value)), 1.0) == {"odd": None}


def test_a_metric_that_returns_a_bare_number_is_one_sentence_and_no_traceback() -> None:
    part: Metric[Any] = Metric("label", lambda factor: 0.5)
    with pytest.raises(RecipeError, match="adds 'odd' to gmmcli's metrics, which does not return an Estimate"):
        with_metrics({}, Registry("metrics", {"odd": part}), 1.0)


@pytest.mark.parametrize("family", [METRICS, SAMPLE_METRICS], ids=lambda family: family.family)
def test_a_bare_function_is_no_metric(family: Registry[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"bare": "def odd(*inputs): ..."}, {family.family: {"odd": "bare:odd"}})
    try:
        with pytest.raises(RecipeError, match=f"package others adds 'odd' to gmmcli's {family.family}, which is no Metric"):
            with_metrics({}, family, 1.0)
    finally:
        installed.cache_clear()


def test_a_metric_replaces_no_other_value() -> None:
    with pytest.raises(RecipeError, match="adds the metric 'nll', which is the key of another value") as raised:
        with_metrics({"nll": 0.5}, registry(nll=Estimate(0.0)), 1.0)
    assert raised.value.hint is not None and "gmmcli.metrics" in raised.value.hint
