import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from torch import Tensor

from gmmcli.core.heads import MaxMahalanobisHead
from gmmcli.metrics.outputs import Outputs
from gmmcli.metrics.scores import SCORES, distance, log_odds, log_px, mass, max_py


def said(logits: Tensor, mass: Tensor | None = None) -> Outputs:
    return Outputs(torch.zeros(len(logits), 1), logits, mass)


@pytest.fixture
def logits(generator: torch.Generator) -> Tensor:
    return -20 * torch.rand(50, 10, generator=generator)


@pytest.mark.parametrize("gamma2", [0.2, 1.0, 30.0])
def test_log_px_is_logsumexp_in_float64(logits: Tensor, gamma2: float) -> None:
    found = log_px(said(logits), gamma2)
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(logsumexp(logits.double().numpy() / gamma2, axis=1), rel=1e-14)


def test_log_px_does_not_underflow_far_from_all_means() -> None:
    assert log_px(said(torch.tensor([[-1e6, -1e6], [-2e6, -1e6]])), 2.0).tolist() == [np.log(2) - 5e5, -5e5]


@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0.1, 10), st.floats(0.5, 20))
@settings(derandomize=True, max_examples=40)
def test_max_py_is_the_log_odds_of_the_largest_probability(seed: int, n_classes: int, spread: float, gamma2: float) -> None:
    logits = spread * torch.randn(20, n_classes, generator=torch.Generator().manual_seed(seed))
    probabilities = np.sort(softmax(logits.double().numpy() / gamma2, axis=1), axis=1)
    expected = np.log(probabilities[:, -1]) - np.log(probabilities[:, :-1].sum(1))
    assert max_py(said(logits), gamma2).numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gamma2", [1.0, 30.0])
def test_max_py_is_ordered_as_the_largest_softmax(logits: Tensor, gamma2: float) -> None:
    largest = torch.softmax(logits.double() / gamma2, 1).amax(1)
    assert len(largest.unique()) == len(largest)
    assert torch.equal(max_py(said(logits), gamma2).argsort(), largest.argsort())


def test_max_py_is_still_ordered_where_the_softmax_is_one_for_all() -> None:
    runners_up = torch.arange(100.0, 5000.0, 7.0)
    logits = torch.stack([torch.zeros_like(runners_up), -runners_up, -runners_up], 1)
    assert bool((torch.softmax(logits.double(), 1).amax(1) == 1).all())
    assert bool((max_py(said(logits), 1.0).diff() > 0).all())
    assert max_py(said(logits), 2.0).numpy() == pytest.approx(runners_up.numpy() / 2 - np.log(2), rel=1e-14)


def test_log_odds_of_equal_classes() -> None:
    assert log_odds(torch.full((1, 5), -3.0)).tolist() == pytest.approx([-np.log(4)])


def test_log_odds_do_not_depend_on_the_order_of_the_classes(logits: Tensor, generator: torch.Generator) -> None:
    assert torch.equal(log_odds(logits), log_odds(logits[:, torch.randperm(10, generator=generator)]))


@pytest.mark.parametrize("gamma2", [0.2, 30.0])
def test_distance_is_minus_half_the_squared_distance_to_the_nearest_mean(gamma2: float, generator: torch.Generator) -> None:
    head, features = MaxMahalanobisHead(4, 6, 3.0), 2 * torch.randn(30, 6, generator=generator)
    found = distance(said(head(features)), gamma2)
    expected = -(torch.cdist(features.double(), head.means.double()).amin(1) ** 2) / 2
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma2", [0.2, 30.0])
def test_mass_is_highest_where_the_density_is_flat(gamma2: float) -> None:
    found = mass(said(torch.zeros(3, 2), torch.tensor([0.0, 4.0, 1.5])), gamma2)
    assert found.dtype == torch.float64
    assert found.tolist() == [0.0, -4.0, -1.5]


def test_mass_needs_a_pass_with_gradients() -> None:
    with pytest.raises(AssertionError, match="without gradients"):
        mass(said(torch.zeros(3, 2)), 1.0)


def test_the_scores_by_the_names_of_the_command_line() -> None:
    assert list(SCORES.items()) == [("log_px", log_px), ("max_py", max_py), ("mass", mass), ("distance", distance)]


@pytest.mark.parametrize("name", ["log_px", "max_py", "distance"])
def test_an_image_at_a_class_mean_scores_highest(name: str) -> None:
    head = MaxMahalanobisHead(4, 6, 3.0)
    on_the_way = torch.linspace(1, 0, 11)[:, None] * head.means[2]  # to the middle of all means
    score = SCORES[name](said(head(on_the_way)), 1.0)
    assert bool((score.diff() < 0).all())
