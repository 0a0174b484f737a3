from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, norm, poisson

from gmmcli.evaluate.intervals import BOOTSTRAP, REPLICATES, Z95, percentiles, resampled, wilson_interval


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
