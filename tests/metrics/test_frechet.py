from math import e, exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from gmmcli.metrics.frechet import SUBSETS, Moments, frechet_distance, frechet_error, inception_score, kernel_distance
from gmmcli.vision import torchvision


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gaussian(mean: object, covariance: object) -> Moments:
    return Moments(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(covariance, dtype=torch.float64))


def random_moments(seed: int, dim: int) -> Moments:
    factor = normal(seed, dim, 2 * dim)
    return Moments(normal(seed + 1000, dim), factor @ factor.T / dim)


def rotation(seed: int, dim: int) -> Tensor:
    return torch.linalg.qr(normal(seed, dim, dim))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_are_numpys_in_float64(dtype: torch.dtype) -> None:
    features = (normal(0, 40, 5) + 100).to(dtype)  # an offset that float32 sums would not bear
    moments = Moments.of(features)
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    rows = features.double().numpy()
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-12)


def test_moments_of_a_single_feature_are_a_matrix_all_the_same() -> None:
    moments = Moments.of(torch.tensor([[1.0], [3.0]]))
    assert (moments.mean.tolist(), moments.covariance.tolist()) == ([2.0], [[2.0]])


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_covariance(n: int) -> None:
    with pytest.raises(ValueError, match=f"two images or more, not {n}"):
        Moments.of(torch.zeros(n, 3))


@pytest.mark.parametrize("n", [2, 10, 200])
def test_a_set_is_at_no_distance_from_itself_also_with_fewer_images_than_features(n: int) -> None:
    features = 3 * normal(1, n, 32)
    assert frechet_distance(Moments.of(features), Moments.of(features.clone())) == pytest.approx(0, abs=1e-10)


deviations = st.lists(st.floats(0, 10), min_size=3, max_size=3)
means = st.lists(st.floats(-10, 10), min_size=3, max_size=3)


@settings(max_examples=40)
@given(means, means, deviations, deviations, st.integers(0, 2**31))
def test_commuting_covariances_have_a_closed_form(m: list[float], n: list[float], s: list[float], t: list[float], seed: int) -> None:
    turn = rotation(seed, 3)
    a, b = (gaussian(turn @ exact(mean), turn @ torch.diag(exact(std) ** 2) @ turn.T) for mean, std in ((m, s), (n, t)))
    expected = sum((x - y) ** 2 for x, y in zip(m + s, n + t, strict=True))
    # a deviation below sqrt(3 eps) of the largest is rounding error in a covariance: it may cost 4.5e-8 of the distance
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7, abs=1e-5)


def test_diagonal_covariances_compare_deviation_by_deviation() -> None:
    a, b = gaussian([0, 0], [[1, 0], [0, 4]]), gaussian([3, 4], [[9, 0], [0, 4]])
    assert frechet_distance(a, b) == pytest.approx(3**2 + 4**2 + (3 - 1) ** 2, rel=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 8, 40])
@pytest.mark.parametrize("seed", range(3))
def test_in_general_it_is_the_formula_with_scipys_root(dim: int, seed: int) -> None:
    a, b = random_moments(seed, dim), random_moments(seed + 10, dim)
    root = sqrtm((a.covariance @ b.covariance).numpy())
    expected = (a.mean - b.mean).square().sum() + torch.trace(a.covariance + b.covariance) - 2 * np.trace(root).real
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


SINGULAR = {
    "orthogonal lines": ([[1, 0], [0, 0]], [[0, 0], [0, 1]], 2.0),
    "the same line": ([[4, 0], [0, 0]], [[1, 0], [0, 0]], 1.0),
    "lines at 60 degrees": ([[1, 0], [0, 0]], [[0.25, 0.75**0.5 / 2], [0.75**0.5 / 2, 0.75]], 1.0),
    "a point and a line": ([[0, 0], [0, 0]], [[0, 0], [0, 9]], 9.0),
    "two points": ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 0.0),
    "a line in a disc": ([[1, 0], [0, 1]], [[4, 0], [0, 0]], 2.0),
}


@pytest.mark.parametrize(("a", "b", "expected"), SINGULAR.values(), ids=SINGULAR)
def test_singular_covariances_have_their_distance_too(a: list[list[float]], b: list[list[float]], expected: float) -> None:
    assert frechet_distance(gaussian([1, 2], a), gaussian([1, 2], b)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (5, 20), (20, 5), (20, 200)])
def test_fewer_images_than_features_agree_with_the_nuclear_norm_of_the_data(n_a: int, n_b: int) -> None:
    a, b = normal(1, n_a, 64), normal(2, n_b, 64) * 2 + 1
    roots = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    trace = roots[0].square().sum() + roots[1].square().sum() - 2 * torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    expected = float((a.mean(0) - b.mean(0)).square().sum() + trace)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-10)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_distance_is_symmetric_and_neither_turning_nor_moving_space_changes_it(seed: int, dim: int) -> None:
    a, b = random_moments(seed, dim), random_moments(seed + 1, dim)
    turn, shift = rotation(seed, dim), normal(seed, dim)
    moved = [Moments(turn @ m.mean + shift, turn @ m.covariance @ turn.T) for m in (a, b)]
    distance = frechet_distance(a, b)
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-8)
    assert frechet_distance(*moved) == pytest.approx(distance, rel=1e-8)


def textbook_mmd2(a: Tensor, b: Tensor) -> float:
    """Gretton et al. 2012, Eq. 3, with the kernel ``(x.y / d + 1)^3``, one pair at a time."""

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    return float(sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b]))


@pytest.mark.parametrize("shift", [0, 1])
def test_a_subset_of_all_images_gives_the_unbiased_estimator(shift: float) -> None:
    a, b = normal(1, 20, 3), normal(2, 20, 3) + shift
    mean, std, _ = kernel_distance(a, b, seed=1)
    assert mean == pytest.approx(textbook_mmd2(a, b), rel=1e-10)
    assert std == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_it_is_the_kid_of_torchmetrics() -> None:
    torchvision("transforms")
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = normal(1, 60, 8), 2 * normal(2, 60, 8)
    metric = KernelInceptionDistance(torch.nn.Identity(), subsets=2, subset_size=60).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert kernel_distance(a, b, seed=1)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_random_subsets_of_the_larger_set_mean_what_the_whole_set_means() -> None:
    a, b = normal(1, 60, 3), normal(2, 20, 3) + 0.5
    mean, std, error = kernel_distance(a, b, seed=1)
    assert std > 0
    assert abs(mean - textbook_mmd2(a, b)) < 4 * std / SUBSETS**0.5
    assert kernel_distance(a, b, seed=1) == (mean, std, error)
    assert kernel_distance(a, b, seed=2) != (mean, std, error)


def population_mmd2(shift: float) -> float:
    """Of N(0, 1) and N(shift, 1) under ``(xy + 1)^3``: the squared gaps between their raw moments, weighted 1, 3, 3."""
    return (shift**3 + 3 * shift) ** 2 + 3 * shift**4 + 3 * shift**2


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_it_estimates_the_squared_discrepancy_without_bias(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSET_SIZE", 100)  # a hundred nearly disjoint ones
    mean, std, _ = kernel_distance(normal(1, 10_000, 1), normal(2, 10_000, 1) + shift, seed=1)
    assert std > 0
    assert abs(mean - population_mmd2(shift)) < 3 * std / SUBSETS**0.5


@pytest.mark.parametrize("n", [60, 400])  # fewer than a subset takes, and several subsets
def test_the_error_of_the_kernel_distance_is_what_many_draws_scatter_by(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSET_SIZE", 100)
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSETS", 20)
    reference = normal(0, 500, 4)
    drawn = [kernel_distance(normal(seed, n, 4) * 0.8 + 0.3, reference, seed) for seed in range(1, 61)]
    scatter = torch.tensor([one.mean for one in drawn]).std()
    assert 0.8 < float(torch.tensor([one.error for one in drawn]).mean() / scatter) < 1.5


def test_samples_of_the_same_kind_are_much_nearer_than_others() -> None:
    same, other = (abs(kernel_distance(normal(1, 300, 16), normal(2, 300, 16) + shift, seed=1)[0]) for shift in (0, 0.5))
    assert same < 0.05 * other


@pytest.mark.parametrize("k", [1, 2, 10, 1008])
def test_uniform_probabilities_score_one(k: int) -> None:
    assert inception_score(torch.full((30, k), 1 / k)) == pytest.approx((1, 0), abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_certain_and_balanced_probabilities_score_the_number_of_classes(k: int) -> None:
    certain = torch.eye(k)[torch.arange(40 * k) % k]
    assert inception_score(certain) == pytest.approx((k, 0), rel=1e-12, abs=1e-12)


def test_one_class_alone_scores_one() -> None:
    assert inception_score(torch.eye(4)[torch.zeros(20, dtype=torch.long)]) == pytest.approx((1, 0), abs=1e-12)


def test_half_certain_probabilities_score_the_exponential_of_their_information() -> None:
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).repeat(20, 1)
    information = log(2) + 0.9 * log(0.9) + 0.1 * log(0.1)
    assert inception_score(p) == pytest.approx((exp(information), 0), rel=1e-12, abs=1e-12)


def test_the_score_is_the_mean_of_its_splits_and_the_std_theirs() -> None:
    certain = torch.eye(2)[torch.arange(10) % 2].repeat(5, 1)
    uncertain = torch.full((50, 2), 0.5)
    assert inception_score(torch.cat([certain, uncertain])) == pytest.approx((1.5, 0.5))


@pytest.mark.parametrize("n", [3, 10, 11, 95, 101])
def test_splits_are_those_of_salimans(n: int) -> None:
    probs = torch.softmax(3 * normal(0, n, 4), 1).numpy()
    n_splits, scores = min(10, n), []
    for i in range(n_splits):
        part = probs[i * n // n_splits : (i + 1) * n // n_splits]
        scores.append(e ** np.mean(np.sum(part * (np.log(part) - np.log(part.mean(0))), 1)))
    assert inception_score(torch.from_numpy(probs)) == pytest.approx((np.mean(scores), np.std(scores)))


@pytest.mark.parametrize(("n", "dim", "ratio"), [(300, 6, (0.75, 1.3)), (60, 100, (0.9, 2.5))])
def test_the_standard_error_is_what_distances_of_many_draws_scatter_by(n: int, dim: int, ratio: tuple[float, float]) -> None:
    """With fewer samples than features, too, where it errs on the wide side."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.eye(dim) * 0.8 + 0.05 * torch.randn(dim, dim, generator=rng)
    reference = Moments.of(torch.randn(3000, dim, generator=rng))
    drawn = [torch.randn(n, dim, generator=rng) @ mix + 0.2 for _ in range(60)]
    distances = torch.tensor([frechet_distance(Moments.of(samples), reference) for samples in drawn])
    claimed = torch.tensor([frechet_error(samples, Moments.of(samples), reference) for samples in drawn])
    assert ratio[0] < float(claimed.mean() / distances.std()) < ratio[1]


def test_samples_that_are_all_alike_have_no_error() -> None:
    samples = torch.ones(5, 3)
    assert frechet_error(samples, Moments.of(samples), Moments.of(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))) == 0
