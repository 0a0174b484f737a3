from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, norm, poisson

from gmmcli.metrics.intervals import (
    BOOTSTRAP,
    REPLICATES,
    Z95,
    absolute_sum_interval,
    exact_interval,
    mean_interval,
    percentiles,
    resampled,
    wilson_interval,
)


def test_z_leaves_out_a_fortieth_on_either_side() -> None:
    assert pytest.approx(norm.ppf(0.975), rel=1e-14) == Z95


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (9, 10), (50, 100), (9973, 10_000), (0, 10_000)])
def test_the_wilson_interval_is_scipys(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)


counts = st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
@settings(derandomize=True)
def test_the_wilson_interval_holds_the_share_stays_in_the_unit_range_and_mirrors(count: tuple[int, int]) -> None:
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n + 1e-15
    assert successes / n - 1e-15 <= high <= 1
    assert high - low > 0
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_more_images_narrow_the_wilson_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(9 * n // 10, n) for n in (10, 100, 1000, 10_000))]
    assert widths == sorted(widths, reverse=True)


def test_replicates_count_images_as_poisson_variables_of_mean_one() -> None:
    weights = resampled(200)
    assert (weights.shape, weights.dtype) == ((REPLICATES, 200), torch.float64)
    assert f"{REPLICATES} Poisson" in BOOTSTRAP
    found = np.bincount(weights.flatten().long().clamp(max=5), minlength=6)
    expected = np.append(poisson.pmf(range(5), 1), poisson.sf(4, 1)) * weights.numel()
    assert chisquare(found, expected).pvalue > 0.01


def test_images_are_drawn_independently_of_each_other() -> None:
    correlations = np.corrcoef(resampled(50).numpy(), rowvar=False)[np.triu_indices(50, 1)]
    assert np.abs(correlations.mean()) < 4 / sqrt(REPLICATES * len(correlations))
    assert np.std(correlations) == pytest.approx(1 / sqrt(REPLICATES), rel=0.1)


def test_replicates_are_a_function_of_the_seed() -> None:
    assert torch.equal(resampled(30), resampled(30, seed=0))
    assert not torch.equal(resampled(30), resampled(30, seed=1))


def test_percentiles_are_the_middle_95_percent_in_any_order(generator: torch.Generator) -> None:
    assert percentiles(torch.randperm(101, generator=generator).double()) == pytest.approx([2.5, 97.5], rel=1e-15)


def test_undefined_replicates_are_left_out() -> None:
    figures = torch.arange(101).double()
    assert percentiles(torch.cat([figures, torch.full((40,), torch.nan)])) == percentiles(figures)


def interval_of_the_mean(sample: torch.Tensor, seed: int) -> list[float]:
    weights = resampled(len(sample), seed)
    return percentiles(weights @ sample / weights.sum(1))


def test_the_bootstrap_interval_of_a_mean_is_about_the_normal_one(generator: torch.Generator) -> None:
    sample = torch.empty(2000, dtype=torch.float64).exponential_(generator=generator)
    error = float(sample.std()) / sqrt(len(sample))
    noise = sqrt(0.025 * 0.975 / REPLICATES) / norm.pdf(Z95)  # standard error of either percentile, in units of the mean's
    found, expected = np.array(interval_of_the_mean(sample, 0)), float(sample.mean()) + error * Z95 * np.array([-1, 1])
    assert np.abs(found - expected).max() < 3 * noise * error


def test_the_bootstrap_interval_covers_a_known_mean_19_times_of_20(generator: torch.Generator) -> None:
    samples = torch.rand(200, 200, generator=generator, dtype=torch.float64)
    covered = sum(low <= 0.5 <= high for low, high in (interval_of_the_mean(sample, seed) for seed, sample in enumerate(samples)))
    assert binomtest(covered, len(samples), 0.95).pvalue > 0.01


@pytest.mark.parametrize(("successes", "n"), [(0, 50), (1, 360), (3, 360), (25, 50), (359, 360), (50, 50)])
def test_the_interval_of_a_mean_of_zeros_and_ones_is_the_exact_one_of_the_share(successes: int, n: int) -> None:
    values = torch.zeros(n)
    values[:successes] = 1
    expected = np.array(binomtest(successes, n).proportion_ci(method="exact"))
    noise = 0.15 * (expected[1] - expected[0])  # of quantiles of three hundred replicates
    assert np.abs(np.array(mean_interval(values, 0.0, 1.0)) - expected).max() < noise


def test_the_interval_of_a_mean_covers_where_few_images_make_it(generator: torch.Generator) -> None:
    """One image in a hundred counts 1, others next to nothing; percentiles of a bootstrap cover 85% to 90% of the time."""
    covered = {mean_interval: 0, interval_of_the_mean: 0}
    for i in range(200):
        sample = (torch.rand(300, generator=generator) < 0.01).double() + 1e-9
        for low, high, method in (
            (*mean_interval(sample, 0.0, 2.0), mean_interval),
            (*interval_of_the_mean(sample, i), interval_of_the_mean),
        ):
            covered[method] += low <= 0.01 + 1e-9 <= high
    assert covered[mean_interval] >= 187  # 95% less a deviation and a half
    assert covered[interval_of_the_mean] < 187


def test_the_interval_of_a_mean_without_an_outlier_is_about_the_normal_one(generator: torch.Generator) -> None:
    sample = torch.rand(2000, generator=generator, dtype=torch.float64)
    half = Z95 * float(sample.std()) / sqrt(2000)
    found = np.array(mean_interval(sample, 0.0, 1.0)) - float(sample.mean())
    assert found == pytest.approx([-half, half], rel=0.15)


@pytest.mark.parametrize("truth", [[0.0] * 20, [0.05, -0.05] + [0.0] * 18, [0.02] * 20])
def test_the_interval_of_a_sum_of_absolute_values_covers_it(truth: list[float], generator: torch.Generator) -> None:
    """Also where every term is 0 in truth, so that all there is is bias."""
    n, covered, terms = 400, 0, torch.tensor(truth, dtype=torch.float64)
    weights = resampled(n)
    for _ in range(100):
        images = terms + 0.1 * torch.randn(n, 20, generator=generator, dtype=torch.float64)
        means = images.mean(0)
        low, high = absolute_sum_interval(means, weights @ images / weights.sum(1, keepdim=True), n)
        assert low < float(means.abs().sum()) < high
        covered += low <= float(terms.abs().sum()) <= high
    assert covered >= 90


@pytest.mark.parametrize("confidence", [0.95, 0.9975])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 10), (10, 10)])
def test_the_exact_interval_is_scipys(successes: int, n: int, confidence: float) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence, method="exact")
    assert exact_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), rel=1e-9)
