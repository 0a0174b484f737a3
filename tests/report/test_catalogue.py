from math import inf, nan
from typing import Any

import pytest

from gmmcli.metrics.metric import Estimate, Metric
from gmmcli.registry import Registry
from gmmcli.report import catalogue
from gmmcli.report.catalogue import Protocol, Quantity, differing_facts, estimates, is_detection, mean_detection
from gmmcli.report.summary import summarise


def result(command: str, values: dict[str, Any], **protocol: Any) -> dict[str, Any]:
    """As a command saves it."""
    return {"command": command, "dataset": "digits", "split": "test", "step": 10, "n": 1000, "protocol": protocol, "values": values}


def found(one: dict[str, Any]) -> dict[str, tuple[Quantity, Estimate]]:
    return {metric.key: (metric, figure) for metric, figure in estimates(one)}


def test_a_protocol_has_the_facts_that_were_asked_for_of_the_head_and_of_the_protocol() -> None:
    one = result("eval generate", {}, space="pixels", samples={"from": "noise", "steps": 5}, seed=3, stats=None)
    protocol = Protocol.of(one, ("n", "samples.from", "samples.steps", "space", "stats", "other.thing"))
    assert protocol.facts == (("n", "1,000"), ("from", "noise"), ("steps", "5"), ("space", "pixels"))
    assert protocol.describe(["n", "from"]) == "n 1,000, from noise"
    assert protocol.describe(["judge"]) == "judge unknown"


def test_that_a_classifier_was_refined_is_always_shown() -> None:
    plain, refined = (result("eval accuracy", {"accuracy": 0.5}, **more) for more in ({}, {"refinement": "10 steps"}))
    quantity, _ = found(refined)["accuracy"]
    assert quantity.protocol.describe(quantity.named) == "refinement 10 steps"
    quantity, _ = found(plain)["accuracy"]
    assert quantity.named == ()
    assert quantity.protocol.describe(["refinement"]) == "refinement none"


def test_a_path_through_what_is_no_table_finds_nothing() -> None:
    assert Protocol.of(result("eval generate", {}, samples="some.npz"), ["samples.from"]) == Protocol()


def test_facts_differ_where_a_value_does_or_is_lacking() -> None:
    one, other = Protocol((("n", "9"), ("from", "noise"), ("steps", "5"))), Protocol((("n", "9"), ("from", "buffer")))
    assert differing_facts([one, other]) == ["from", "steps"]
    assert differing_facts([one, one]) == []


@pytest.mark.parametrize(
    ("command", "values", "protocol", "key", "changed"),
    [
        ("eval accuracy", {"accuracy": 0.5, "nll": 1.0}, {}, "accuracy", {"n": 9}),
        ("eval accuracy", {"accuracy": 0.5, "nll": 1.0}, {}, "accuracy", {"split": "validation"}),
        ("eval accuracy", {"accuracy": 0.5, "nll": 1.0}, {}, "accuracy", {"dataset": "mnist"}),
        ("eval accuracy", {"accuracy": 0.5, "nll": 1.0}, {}, "accuracy", {"protocol": {"refinement": "10 steps"}}),
        ("eval accuracy", {"accuracy": 0.5, "nll": 1.0}, {}, "nll", {"protocol": {"refinement": "10 steps"}}),
        (
            "attack pgd",
            {"eps": {"8/255": {"accuracy": 0.5}}},
            {"loss": "margin", "norm": "linf"},
            "pgd-margin-linf 8/255",
            {"protocol": {"loss": "margin", "norm": "linf", "refinement": "10 steps"}},
        ),
        (
            "attack audit",
            {"worst_case": {"8/255": {"accuracy": 0.5}}},
            {},
            "worst 8/255",
            {"protocol": {"refinement": "10 steps"}},
        ),
        ("eval accuracy", {"accuracy": 0.5, "nll": 1.0}, {}, "nll", {"protocol": {"probabilities": "softmax of logits / T"}}),
        (
            "eval ood",
            {"svhn": {"log_px": {"auroc": 0.5}}},
            {"sets": {"svhn": {"n": 9}}},
            "ood svhn log_px",
            {"protocol": {"sets": {"svhn": {"n": 7}}}},
        ),
        (
            "eval ood",
            {"svhn": {"knn": {"auroc": 0.5}}},
            {"sets": {}, "fitted": {"knn": {"k": 50}}},
            "ood svhn knn",
            {"protocol": {"sets": {}, "fitted": {"knn": {"k": 20}}}},
        ),
        ("attack audit", {"worst_case": {"1": {"accuracy": 0.5}}}, {"attacks": {"a": {}}}, "worst 1", {"protocol": {"attacks": {"b": {}}}}),
        ("attack cw", {"l2_mean": 0.5}, {"steps": 100}, "cw", {"protocol": {"steps": 1000}}),
        (
            "eval generate",
            {"label_agreement": 0.5, "judge": "an SVC"},
            {},
            "label_agreement",
            {"values": {"label_agreement": 0.5, "judge": "run x"}},
        ),
    ],
)
def test_what_was_measured_otherwise_is_another_metric_and_other_weights_are_not(
    command: str, values: dict[str, Any], protocol: dict[str, Any], key: str, changed: dict[str, Any]
) -> None:
    one = result(command, values, **protocol)
    assert found(one | {"step": 11, "run": "another"})[key][0] == found(one)[key][0]
    assert found(one | changed)[key][0] != found(one)[key][0]


def test_sets_of_one_name_from_two_places_are_two() -> None:
    row = {"log_px": {"auroc": 0.5}}
    (one, _), (other, _) = estimates(result("eval ood", {"npz:a/faces.npz": row, "npz:b/faces.npz": row}))
    assert one.key == other.key == "ood faces.npz log_px"
    assert one != other


def test_every_interval_that_a_result_has_is_read_and_none_made_up() -> None:
    values = {"l2_mean": 0.5, "l2_mean_ci95": [0.4, 0.6]}
    assert found(result("attack cw", values))["cw"][1] == (0.5, (0.4, 0.6))
    assert found(result("attack cw", {"l2_mean": 0.5}))["cw"][1] == (0.5, None)
    some = found(result("eval generate", {"coverage": 0.5, "precision": 0.25, "precision_ci95": [0.2, 0.3], "ci95": [0, 1]}))
    assert (some["coverage"][1].ci95, some["precision"][1].ci95) == (None, (0.2, 0.3))


@pytest.mark.parametrize("value", [None, nan, inf])
def test_what_is_no_finite_number_is_left_out(value: float | None) -> None:
    assert found(result("attack cw", {"l2_mean": value})) == {}


def test_scores_are_those_of_the_result_whatever_they_are_called() -> None:
    labels = [metric.label for metric, _ in estimates(result("eval ood", {"svhn": {"log_px": {"auroc": 0.5}, "distance": {"auroc": 0.5}}}))]
    assert labels == ["log p(x) against svhn", "distance against svhn"]


def test_registered_metrics_are_described_by_the_registry_and_may_be_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    def unused(*inputs: Any) -> Estimate:
        raise AssertionError("a report measures nothing")

    kappa, top2 = Metric("Cohen's kappa", unused, "", "high"), Metric("top-2 error", unused, better="low")
    monkeypatch.setattr(catalogue, "METRICS", Registry("metrics", {"kappa": kappa, "top2": top2, "absent": kappa}))
    one = result("eval accuracy", {"accuracy": 0.5, "kappa": -0.5, "kappa_ci95": [-0.6, -0.4], "top2": 0.25}, probabilities="softmax")
    registered = found(one)
    assert registered.keys() == {"accuracy", "kappa", "top2"}
    quantity, estimate = registered["kappa"]
    assert (quantity.label, quantity.group, quantity.unit, quantity.better) == ("Cohen's kappa", "Classification", "", "high")
    assert dict(quantity.protocol.facts) == {"dataset": "digits", "split": "test", "n": "1,000", "probabilities": "softmax"}
    assert summarise(quantity, [estimate]).interval == pytest.approx((-0.6, -0.4))
    assert (registered["top2"][0].unit, registered["top2"][0].better) == ("share", "low")


def test_other_commands_measure_nothing_that_is_compared() -> None:
    assert found(result("tsne", {"knn_accuracy": 0.5})) == {}


def test_a_mean_over_sets_is_as_well_known_as_they_are_on_average() -> None:
    values = {"a": {"log_px": {"auroc": 0.5, "auroc_ci95": [0.4, 0.7]}}, "b": {"log_px": {"auroc": 1.0, "auroc_ci95": [0.9, 1.0]}}}
    detected = dict(estimates(result("eval ood", values)))
    assert all(map(is_detection, detected))
    metric, figure = mean_detection(detected)
    assert (figure.value, figure.ci95) == (0.75, pytest.approx((0.65, 0.85)))
    assert metric.protocol.facts == (("dataset", "digits"), ("split", "test"), ("n", "1,000"), ("over", "a, b"))
