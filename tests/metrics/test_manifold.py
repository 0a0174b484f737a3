from math import dist
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gmmcli.metrics.manifold import Hits, K, manifold_values, memorisation_values, nearest, on_a_grid, squared_distances


def points(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def grid(seed: int, n: int, dim: int) -> np.ndarray:
    """Whole numbers, whose distances have no rounding."""
    return np.random.default_rng(seed).integers(-100, 100, (n, dim)).astype(np.float64)


def figures(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not name.endswith("_ci95")}


def one_by_one(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    def radius(x: np.ndarray, own: np.ndarray) -> float:
        return sorted(dist(x, y) for y in own)[k]  # the nearest is x itself

    real_radii, fake_radii = [radius(x, real) for x in real], [radius(y, fake) for y in fake]
    in_real = [[dist(x, y) < r for x, r in zip(real, real_radii, strict=True)] for y in fake]
    in_fake = [[dist(x, y) < r for y, r in zip(fake, fake_radii, strict=True)] for x in real]
    return {
        "precision": sum(any(row) for row in in_real) / len(fake),
        "recall": sum(any(row) for row in in_fake) / len(real),
        "density": sum(sum(row) for row in in_real) / (k * len(fake)),
        "coverage": sum(any(row[i] for row in in_real) for i in range(len(real))) / len(real),
    }


@pytest.mark.parametrize(("n_real", "n_fake"), [(40, 30), (30, 40), (K + 1, 40), (40, K), (2, 2), (20, 2)])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_figures_are_those_of_a_loop_over_all_pairs(n_real: int, n_fake: int, scale: float, dtype: type) -> None:
    real, fake = points(1, n_real, 3).astype(dtype), (scale * points(2, n_fake, 3) + 0.5).astype(dtype)
    expected = one_by_one(real, fake, min(K, n_real - 1, n_fake - 1))
    assert figures(manifold_values(real, fake)) == pytest.approx(expected, rel=1e-12)


def test_the_four_figures_are_four() -> None:
    values = figures(manifold_values(points(1, 40, 3), points(2, 30, 3) + 1))
    assert len({round(value, 6) for value in values.values()}) == 4
    assert all(0 < value < 1 for value in values.values())


def prdc(real: np.ndarray, fake: np.ndarray, k: int = K) -> dict[str, float]:
    """compute_prdc of Naeem et al., line by line, over distances from differences: of equal points 0, alike wherever they stand."""
    real_to_real, fake_to_fake, real_to_fake = cdist(real, real), cdist(fake, fake), cdist(real, fake)
    real_radii, fake_radii = (np.partition(distances, k, axis=-1)[..., k] for distances in (real_to_real, fake_to_fake))
    return {
        "precision": (real_to_fake < real_radii[:, None]).any(0).mean(),
        "recall": (real_to_fake < fake_radii[None]).any(1).mean(),
        "density": (1 / k) * (real_to_fake < real_radii[:, None]).sum(0).mean(),
        "coverage": (real_to_fake.min(1) < real_radii).mean(),
    }


@pytest.mark.parametrize("dim", [8, 64, 1280])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("memorised", [16, 50, 400])
def test_memorised_samples_have_the_figures_of_prdc(memorised: int, dtype: type, dim: int) -> None:
    """Samples that are copies of few real images: most radii are 0 then, and most distances ties."""
    real = points(1, 200, dim).astype(dtype)
    fake = real[np.random.default_rng(2).integers(0, min(memorised, 200), 200)]
    values = figures(manifold_values(real, fake))
    assert values == pytest.approx(prdc(real, fake), abs=1e-12)
    assert values["precision"] == 1
    if memorised == 16:  # every sample has its copies for nearest neighbours: its ball is empty
        assert values["recall"] < 0.1


def test_samples_of_duplicated_real_points_recall_an_eighth() -> None:
    """Four copies each of 25 real points lie in each other's balls, twenty copies each of a hundred others have empty balls."""
    near, far = points(1, 25, 64) / 100, points(2, 175, 64)
    real, fake = np.vstack([near, far]), np.vstack([near.repeat(4, 0), far[:100].repeat(20, 0)])
    assert manifold_values(real, fake)["recall"] == prdc(real, fake)["recall"] == 0.125


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_equal_points_are_at_distance_0_and_equal_distances_equal_wherever_they_stand(shift: float) -> None:
    x = (points(1, 70, 300) + shift).astype(np.float32)
    a, b = on_a_grid(x, x[::-1].copy())
    (_, whole), (_, one) = next(squared_distances(a, b)), next(squared_distances(a[:1], b))
    assert (np.fliplr(whole).diagonal() == 0).all()
    assert np.array_equal(np.fliplr(whole), np.fliplr(whole).T)
    assert np.array_equal(whole[:1], one)
    expected = cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean")
    step = np.sqrt(expected[0, 1] / np.fliplr(whole)[0, 1])
    np.testing.assert_allclose(np.fliplr(whole) * step**2, expected, rtol=1e-4)


def test_points_that_are_all_alike_have_empty_balls() -> None:
    assert figures(manifold_values(np.ones((9, 4)), np.ones((8, 4)))) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_little_memory_means_more_pieces_and_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = points(1, 60, 4), points(2, 50, 4) * 1.5
    whole = manifold_values(real, fake)
    monkeypatch.setattr("gmmcli.metrics.manifold.AT_ONCE", 120)  # two rows of sixty
    assert manifold_values(real, fake) == whole


@pytest.mark.parametrize("seed", range(3))
def test_identical_sets_have_it_all(seed: int) -> None:
    real = points(seed, 100, 8)
    values = manifold_values(real, real.copy())
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [8, 1280])
def test_identical_sets_have_density_one(dim: int, dtype: type, seed: int) -> None:
    real = points(seed, 100, dim).astype(dtype)
    assert manifold_values(real, real.copy())["density"] == 1


def test_another_draw_of_the_same_kind_has_density_one_on_average() -> None:
    densities = [manifold_values(points(2 * i, 100, 4), points(2 * i + 1, 100, 4))["density"] for i in range(50)]
    assert np.mean(densities) == pytest.approx(1, abs=4 * np.std(densities) / 50**0.5)


def test_far_sets_have_nothing() -> None:
    assert set(figures(manifold_values(points(1, 50, 4), points(2, 60, 4) + 1000)).values()) == {0.0}


def test_samples_of_one_mode_of_two_are_precise_and_recall_half() -> None:
    modes = np.concatenate([points(1, 100, 2), points(2, 100, 2) + 1000])
    values = manifold_values(modes, points(3, 100, 2))
    assert values["precision"] > 0.9
    assert 0.4 < values["recall"] <= 0.5
    assert 0.4 < values["coverage"] <= 0.5


def test_samples_of_two_modes_where_one_is_real_are_half_precise_and_recall_it() -> None:
    modes = np.concatenate([points(1, 100, 2), points(2, 100, 2) + 1000])
    values = manifold_values(points(3, 100, 2), modes)
    assert 0.4 < values["precision"] <= 0.5
    assert values["recall"] > 0.9


def test_an_outlier_among_the_real_raises_precision_but_hardly_density() -> None:
    real, fake = points(1, 100, 4), points(2, 100, 4) + 20
    outlier = np.vstack([real, np.full((1, 4), 20.0)])
    before, after = manifold_values(real, fake), manifold_values(outlier, fake)
    assert (before["precision"], before["density"]) == (0, 0)
    assert after["precision"] == 1
    assert after["density"] == pytest.approx(1 / K)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_nearest_are_scipys(k: int) -> None:
    queries, references = points(1, 10, 5), points(2, 20, 5)
    distances, positions = nearest(queries, references, k)
    expected = cdist(queries, references)
    assert np.array_equal(positions, expected.argsort(1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(expected, 1)[:, :k], rtol=1e-9)


def test_no_more_are_nearest_than_there_are() -> None:
    distances, positions = nearest(points(1, 4, 2), points(2, 3, 2), 5)
    assert distances.shape == positions.shape == (4, 3)


def test_training_images_as_samples_are_all_copies() -> None:
    train, test = points(1, 300, 6), points(2, 100, 6)
    values = memorisation_values(train[:50], test, train)
    assert values["copies"] == 1
    assert values["sample_to_train"] == 0
    assert values["test_to_train"] == pytest.approx(np.median(cdist(test, train).min(1)))


def test_copies_among_samples_are_counted_by_their_share() -> None:
    train, test = points(1, 300, 6), points(2, 100, 6)
    samples = np.concatenate([train[:10] + 1e-3, points(3, 30, 6) + 50])
    assert memorisation_values(samples, test, train)["copies"] == 0.25


def test_test_images_as_samples_are_copies_in_one_of_a_hundred() -> None:
    train, test = points(1, 500, 6), points(2, 1000, 6)
    values = memorisation_values(test, test, train)
    assert values["copies"] == 0.01
    assert values["sample_to_train"] == values["test_to_train"]


def test_fresh_images_of_the_same_kind_are_seldom_copies() -> None:
    train, test, samples = points(1, 500, 3), points(2, 4000, 3), points(3, 4000, 3)
    expected, n = 0.01, 4000  # both the samples and the quantile vary by chance
    deviation = (2 * expected * (1 - expected) / n) ** 0.5
    assert memorisation_values(samples, test, train)["copies"] == pytest.approx(expected, abs=3 * deviation)


def test_the_intervals_of_memorisation_cover_what_fresh_images_give() -> None:
    """Samples of the same kind as the test images: one of a hundred is nearer than all but 1% of those."""
    covered = 0
    for seed in range(40):
        train, test, samples = points(1, 300, 3), points(2 + 2 * seed, 400, 3), points(3 + 2 * seed, 400, 3)
        values = memorisation_values(samples, test, train)
        low, high = values["copies_ci95"]
        covered += low <= 0.01 <= high
        assert values["sample_to_train_ci95"][0] < values["sample_to_train"] < values["sample_to_train_ci95"][1]
    assert covered >= 35


def test_far_samples_are_no_copies() -> None:
    train = points(1, 100, 3)
    values = memorisation_values(points(3, 20, 3) + 100, points(2, 100, 3), train)
    assert values["copies"] == 0
    assert values["sample_to_train"] > 100


@pytest.mark.parametrize("piece", [30, 4])
def test_what_one_ball_holds_alone_is_what_leaving_it_out_would_lose(piece: int) -> None:
    """Against leaving out row by row and column by column."""
    inside = np.random.default_rng(0).random((30, 20)) < 0.08
    hits = Hits(30, 20)
    for start in range(0, 30, piece):
        hits.add(inside[start : start + piece], start)
    assert np.array_equal(hits.rows, inside.sum(1))
    assert np.array_equal(hits.columns, inside.sum(0))
    lost_columns = [inside.any(0).sum() - np.delete(inside, i, 0).any(0).sum() for i in range(30)]
    lost_rows = [inside.any(1).sum() - np.delete(inside, j, 1).any(1).sum() for j in range(20)]
    assert max(lost_columns) > 0 < max(lost_rows)
    assert hits.alone_in_column.tolist() == lost_columns
    assert hits.alone_in_row.tolist() == lost_rows


def test_intervals_of_shares_are_as_wide_as_shares_scatter() -> None:
    """Among many draws of both sets; wider by up to a half is allowed, for radii shrink where points crowd, narrower is not."""
    drawn = [manifold_values(points(2 * i, 200, 4), points(2 * i + 1, 120, 4) * 0.9 + 0.3) for i in range(60)]
    for name in ("precision", "recall", "density", "coverage"):
        claimed = np.mean([values[f"{name}_ci95"][1] - values[f"{name}_ci95"][0] for values in drawn]) / (2 * 1.96)
        assert 0.9 < claimed / np.std([values[name] for values in drawn]) < 2
        assert all(values[f"{name}_ci95"][0] <= values[name] <= values[f"{name}_ci95"][1] for values in drawn)
