import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.core.means import max_mahalanobis_means


@st.composite
def simplices(draw: st.DrawFn) -> tuple[int, int, float]:
    n_classes = draw(st.integers(2, 40))
    return n_classes, draw(st.integers(n_classes - 1, 80)), draw(st.floats(0.1, 100))


@given(simplices())
@settings(deadline=None, derandomize=True, max_examples=50)
def test_means_form_a_simplex(case: tuple[int, int, float]) -> None:
    n_classes, dim, radius = case
    means = max_mahalanobis_means(n_classes, dim, radius)
    assert means.shape == (n_classes, dim) and means.dtype == torch.float32
    unit = means.double() / radius
    gram = torch.full((n_classes, n_classes), -1 / (n_classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(unit @ unit.T, gram, atol=1e-6, rtol=0)
    torch.testing.assert_close(unit.sum(0), torch.zeros(dim, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dim", [1, 2, 640])
def test_two_means_are_opposite_poles(dim: int) -> None:
    means = max_mahalanobis_means(2, dim, 10.0)
    assert means[0, 0] == 10
    assert torch.equal(means[0], -means[1])


def test_three_means_in_the_plane_are_an_equilateral_triangle() -> None:
    side = math.sqrt(3) / 2
    torch.testing.assert_close(max_mahalanobis_means(3, 2, 1.0), torch.tensor([[1, 0], [-0.5, side], [-0.5, -side]]))


@pytest.mark.parametrize(("n_classes", "dim"), [(2, 1), (5, 4), (101, 100)])
def test_as_many_means_as_fit_keep_the_largest_possible_distance(n_classes: int, dim: int) -> None:
    means = max_mahalanobis_means(n_classes, dim, 10.0)
    distances = torch.pdist(means.double())
    torch.testing.assert_close(distances, torch.full_like(distances, 10 * math.sqrt(2 * n_classes / (n_classes - 1))), rtol=1e-6, atol=0)


def test_hundred_classes_in_the_papers_network_do_not_lose_precision() -> None:
    unit = max_mahalanobis_means(100, 640, 10.0).double() / 10
    assert (unit @ unit.T - (torch.eye(100) * 100 / 99 - 1 / 99)).abs().max() < 1e-6


@pytest.mark.parametrize(("n_classes", "dim"), [(1, 5), (0, 5), (-3, 5), (7, 5), (3, 1), (2, 0)])
def test_impossible_simplices_are_refused_with_both_numbers(n_classes: int, dim: int) -> None:
    with pytest.raises(ValueError, match=rf"{n_classes} classes and {dim} features"):
        max_mahalanobis_means(n_classes, dim, 10.0)
