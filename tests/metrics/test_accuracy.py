from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, log_loss, recall_score
from torch import Tensor

from gmmcli.metrics.accuracy import accuracy_protocol, accuracy_values, brier_scores, means_over_images, negative_log_likelihoods
from gmmcli.metrics.intervals import mean_interval, wilson_interval

NAMES = ("cat", "dog", "fox", "owl")


def answers(n: int, n_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than not, and labels of every class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    return torch.randn(n, n_classes, generator=rng) + 1.5 * torch.nn.functional.one_hot(labels, n_classes), labels


def measured(logits: Tensor, labels: Tensor, gamma2: float = 1.0) -> dict[str, Any]:
    return accuracy_values(logits, labels, gamma2, NAMES[: logits.shape[1]])


@pytest.mark.parametrize("gamma2", [0.1, 1.0, 7.0])
def test_nll_is_scikit_learns_log_loss(gamma2: float) -> None:
    logits, labels = answers(200, 4)
    probabilities = softmax(logits.double().numpy() / gamma2, axis=1)
    assert measured(logits, labels, gamma2)["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-12)


@pytest.mark.parametrize("gamma2", [0.1, 1.0, 7.0])
def test_brier_of_two_classes_is_twice_scikit_learns(gamma2: float) -> None:
    logits, labels = answers(200, 2)
    probabilities = softmax(logits.double().numpy() / gamma2, axis=1)[:, 1]
    assert measured(logits, labels, gamma2)["brier"] == pytest.approx(2 * brier_score_loss(labels, probabilities), rel=1e-12)


def test_brier_and_nll_of_three_classes_by_hand() -> None:
    log_probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64).log()
    labels = torch.tensor([1, 2])
    assert brier_scores(log_probs, labels).tolist() == pytest.approx([0.25 + 0.49 + 0.04, 0.01 + 0.01 + 0.04])
    assert negative_log_likelihoods(log_probs, labels).exp().tolist() == pytest.approx([1 / 0.3, 1 / 0.8])
    values = means_over_images(log_probs, labels)
    assert values["brier"] == pytest.approx((0.78 + 0.06) / 2)
    assert values["nll"] == pytest.approx(-np.log([0.3, 0.8]).mean())


def test_certain_and_right_has_brier_0_certain_and_wrong_2_and_nll_the_distance_between_logits() -> None:
    """In float32 the probability of the true class would be 0, its logarithm infinite."""
    logits = torch.tensor([[0.0, -1e4], [0.0, -1e4]])
    right, wrong = (measured(logits, torch.full((2,), label), gamma2=2.0) for label in (0, 1))
    assert (right["brier"], right["nll"]) == (0.0, 0.0)
    assert (wrong["brier"], wrong["nll"]) == (2.0, 5000.0)


@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.05, 20))
@settings(derandomize=True, max_examples=30)
def test_proper_scores_are_lowest_on_average_for_the_true_probabilities(seed: int, n_classes: int, other: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    truth, said = (torch.randn(n_classes, generator=rng, dtype=torch.float64).mul(scale).log_softmax(0) for scale in (1, other))
    everyone = torch.arange(n_classes)
    for score in (negative_log_likelihoods, brier_scores):
        honest, dishonest = (truth.exp() @ score(claim.expand(n_classes, -1), everyone) for claim in (truth, said))
        assert honest <= dishonest + 1e-12


@pytest.mark.parametrize("name", ["nll", "brier"])
def test_means_have_the_interval_of_their_images(name: str) -> None:
    logits, labels = answers(300, 4)
    log_probs = logits.double().log_softmax(1)
    score, most = {"nll": (negative_log_likelihoods, -log_probs.min()), "brier": (brier_scores, 2.0)}[name]
    low, high = means_over_images(log_probs, labels)[f"{name}_ci95"]
    assert [low, high] == mean_interval(score(log_probs, labels), 0.0, float(most))
    assert low < float(score(log_probs, labels).mean()) < high


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_a_few_wrong_answers_among_hundreds_have_an_interval_that_is_one(wrong: int) -> None:
    """A bootstrap of what was met ends at 1e-212 in every twentieth replicate of three, and has no width without any."""
    logits, labels = torch.tensor([[0.0, -500.0]]).repeat(360, 1), torch.zeros(360, dtype=torch.long)
    labels[:wrong] = 1
    values = means_over_images(logits.double().log_softmax(1), labels)
    low, high = values["brier_ci95"]
    exact = binomtest(wrong, 360).proportion_ci(method="exact")
    assert [low / 2, high / 2] == pytest.approx([exact.low, exact.high], rel=0.25)
    assert values["nll_ci95"] == pytest.approx([250 * low, 250 * high], rel=1e-3)


def test_accuracy_and_confusion_are_scikit_learns() -> None:
    logits, labels = answers(203, 4)
    values, predicted = measured(logits, labels), logits.argmax(1)
    assert values["accuracy"] == accuracy_score(labels, predicted)
    assert 0 < values["accuracy"] < 1
    assert values["ci95"] == list(wilson_interval(int((predicted == labels).sum()), 203))
    assert values["confusion"] == confusion_matrix(labels, predicted, labels=range(4)).tolist()


def test_the_table_by_class_is_the_recall_of_each() -> None:
    logits, labels = answers(203, 4)
    table = measured(logits, labels)["per_class"]
    assert list(table) == list(NAMES)
    assert [row["n"] for row in table.values()] == [51, 51, 51, 50]
    assert [row["accuracy"] for row in table.values()] == pytest.approx(recall_score(labels, logits.argmax(1), average=None), rel=1e-15)
    assert all(row["ci95"] == list(wilson_interval(round(row["accuracy"] * row["n"]), row["n"])) for row in table.values())


def test_classes_without_images_have_no_accuracy() -> None:
    logits, labels = answers(200, 4)
    only = labels == 2
    values = measured(logits[only], labels[only])
    assert values["per_class"]["fox"] == {"n": 50, "accuracy": values["accuracy"], "ci95": values["ci95"]}
    assert all(values["per_class"][name] == {"n": 0, "accuracy": None, "ci95": None} for name in ("cat", "dog", "owl"))
    assert values["confusion"] == confusion_matrix(labels[only], logits[only].argmax(1), labels=range(4)).tolist()


@pytest.mark.parametrize(("shift", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_labels_moved_by_one_are_all_wrong_for_a_perfect_model(shift: int, accuracy: float) -> None:
    logits, _ = answers(100, 4)
    values = measured(logits, (logits.argmax(1) + shift) % 4)
    assert values["accuracy"] == accuracy
    assert all(row["accuracy"] == accuracy for row in values["per_class"].values())
    assert sum(values["confusion"][k][(k - shift) % 4] for k in range(4)) == 100


def test_at_a_fitted_temperature_nll_and_brier_come_first() -> None:
    logits, labels = answers(100, 4)
    values = accuracy_values(logits, labels, 7.0, NAMES, 2.0)
    names = ["calibrated_nll", "calibrated_nll_ci95", "calibrated_brier", "calibrated_brier_ci95", "nll", "nll_ci95"]
    assert list(values)[2:8] == names
    expected = means_over_images((logits.double() / 2).log_softmax(1), labels)
    assert [values[f"calibrated_{name}"] for name in expected] == list(expected.values())
    assert not any(name.startswith("calibrated") for name in measured(logits, labels, 7.0))


def test_the_variance_changes_no_prediction() -> None:
    logits, labels = answers(100, 4)
    narrow, wide = (measured(logits, labels, gamma2) for gamma2 in (1e-3, 1e3))
    assert all(narrow[key] == wide[key] for key in ("accuracy", "ci95", "per_class", "confusion"))
    assert narrow["nll"] != wide["nll"]
    assert wide["nll"] == pytest.approx(np.log(4), rel=0.01)


def test_the_protocol_names_the_variance_and_both_intervals() -> None:
    protocol = accuracy_protocol(3.5, 2.0)
    assert (protocol["gamma2"], protocol["temperature"]) == (3.5, 2.0)
    assert "Wilson" in protocol["intervals"] and "Gaffke's bootstrap" in protocol["intervals"]
