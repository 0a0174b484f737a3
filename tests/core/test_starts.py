"""Where chains set out: the Gaussians are held to numpy's moments and singular vectors of the images they were fitted to."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from gmmcli.core.protocols import Start, Starts
from gmmcli.core.starts import ClassGaussian, Gaussian, GaussianStarts, Uniform, UniformStarts
from gmmcli.types import to_model

SMALL = (2, 1, 3)
"""Six pixels: as many components as there can be, and a covariance that few draws pin down."""
KINDS = [Uniform(), Gaussian(), ClassGaussian()]


def correlated(n: int, shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """Bytes near the middle of the range, the pixels of an image correlated: draws from their Gaussian meet no clamp."""
    rng, pixels = np.random.default_rng(seed), int(np.prod(shape))
    mixing = rng.normal(size=(pixels, pixels)) * 14 / pixels**0.5
    values = 127 + 10 * rng.normal(size=pixels) + rng.normal(size=(n, pixels)) @ mixing
    return torch.tensor(np.rint(values).clip(0, 255).astype(np.uint8)).view(n, *shape)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Three classes of 150 images, each with a mean and a covariance of its own."""
    return torch.cat([correlated(150, SMALL, seed) for seed in (1, 2, 3)])


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return torch.arange(3).repeat_interleave(150)


def flat(images: torch.Tensor) -> np.ndarray:
    return to_model(images).flatten(1).double().numpy()


def covariance(starts: GaussianStarts, k: int) -> np.ndarray:
    components = starts.components[k].double().numpy()
    return np.asarray(components.T @ components)


def drawn(starts: Starts, label: int, n: int) -> np.ndarray:
    return starts(torch.full((n,), label), torch.Generator().manual_seed(0)).flatten(1).double().numpy()


def test_uniform_starts_fill_the_model_range_evenly(generator: torch.Generator) -> None:
    starts = Uniform().fit(torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), 2, seed=0)
    assert starts == UniformStarts((3, 4, 4)) and starts.tensors() == {}
    images = starts(torch.zeros(50, dtype=torch.long), generator)
    assert images.shape == (50, 3, 4, 4)
    assert kstest(images.flatten(), "uniform", (-1, 2)).pvalue > 0.01


def test_moments_are_those_of_each_class(images: torch.Tensor, labels: torch.Tensor) -> None:
    starts = ClassGaussian().fit(images, labels, 3, seed=0)
    assert starts.shape == SMALL and starts.mean.shape == (3, 6) and starts.components.shape == (3, 6, 6)
    for k in range(3):
        own = flat(images[labels == k])
        assert starts.mean[k].numpy() == pytest.approx(own.mean(0), abs=1e-6)
        assert covariance(starts, k) == pytest.approx(np.cov(own.T, ddof=0), abs=1e-7, rel=1e-4)
    assert not np.allclose(covariance(starts, 0), covariance(starts, 1), rtol=0.1)


@pytest.mark.parametrize("k", [0, 2])
def test_draws_have_the_mean_and_covariance_of_their_class(k: int, images: torch.Tensor, labels: torch.Tensor) -> None:
    n, own = 40_000, flat(images[labels == k])
    draws = drawn(ClassGaussian().fit(images, labels, 3, seed=0), k, n)
    assert np.abs(draws).max() < 1, "this test needs draws that meet no clamp"
    expected = np.cov(own.T, ddof=0)
    stds = np.sqrt(np.diag(expected))
    assert np.abs((draws.mean(0) - own.mean(0)) / stds).max() < 5 / n**0.5
    # an entry of a sample covariance has variance (c_ii c_jj + c_ij^2) / n
    errors = np.sqrt((np.outer(stds**2, stds**2) + expected**2) / n)
    assert (np.abs(np.cov(draws.T, ddof=0) - expected) / errors).max() < 5
    whitened = np.linalg.solve(np.linalg.cholesky(expected), (draws - own.mean(0)).T)
    assert all(kstest(direction, "norm").pvalue > 1e-3 for direction in whitened)


def test_draws_follow_their_labels_in_any_order(images: torch.Tensor, labels: torch.Tensor) -> None:
    starts = ClassGaussian(rank=2).fit(images, labels, 3, seed=0)
    mixed = torch.tensor([2, 0, 1, 1, 2, 0])
    draws = starts(mixed, torch.Generator().manual_seed(4))
    coefficients = torch.randn(6, 2, generator=torch.Generator().manual_seed(4))
    for i, k in enumerate(mixed.tolist()):
        expected = (starts.mean[k] + coefficients[i] @ starts.components[k]).view(SMALL)
        torch.testing.assert_close(draws[i], expected, rtol=0, atol=1e-6)


def test_one_gaussian_serves_all_labels(images: torch.Tensor, labels: torch.Tensor) -> None:
    starts = Gaussian().fit(images, labels, 3, seed=0)
    assert starts.mean.shape == (1, 6) and starts.components.shape == (1, 6, 6)
    everyone = flat(images)
    assert starts.mean[0].numpy() == pytest.approx(everyone.mean(0), abs=1e-6)
    assert covariance(starts, 0) == pytest.approx(np.cov(everyone.T, ddof=0), abs=1e-7, rel=1e-4)
    of_0, of_2 = (drawn(starts, k, 50) for k in (0, 2))
    assert np.array_equal(of_0, of_2)


@pytest.mark.parametrize("n", [300, 150])  # more images than pixels, and fewer
def test_leading_components_are_numpys_singular_vectors_at_their_deviations(n: int) -> None:
    shape, rank = (1, 16, 16), 30
    images = correlated(n, shape, 5)
    starts = Gaussian(rank=rank).fit(images, torch.zeros(n, dtype=torch.long), 1, seed=0)
    centred = flat(images) - flat(images).mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)
    components = starts.components[0].double().numpy()
    assert components.shape == (rank, 256)
    assert np.linalg.norm(components, axis=1) == pytest.approx(scales[:rank] / n**0.5, rel=1e-2)
    leading = components[:10] / np.linalg.norm(components[:10], axis=1)[:, None]
    assert np.abs((leading * directions[:10]).sum(1)) == pytest.approx(np.ones(10), abs=1e-2)  # up to their sign
    gram = components @ components.T
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-4 * gram.max()  # at right angles


@pytest.mark.parametrize(("rank", "kept"), [(1, 1), (4, 4), (6, 6), (256, 6)])
def test_rank_keeps_the_largest_variances_and_leaves_the_others_out(
    rank: int, kept: int, images: torch.Tensor, labels: torch.Tensor
) -> None:
    starts = ClassGaussian(rank=rank).fit(images, labels, 3, seed=0)
    assert starts.components.shape == (3, kept, 6)  # never more than pixels
    for k in range(3):
        values, vectors = np.linalg.eigh(np.cov(flat(images[labels == k]).T, ddof=0))
        expected = (vectors[:, -kept:] * values[-kept:]) @ vectors[:, -kept:].T
        assert covariance(starts, k) == pytest.approx(expected, abs=1e-7, rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_class_of_few_images_has_the_components_that_it_has(n: int, images: torch.Tensor, labels: torch.Tensor) -> None:
    few = torch.cat([torch.arange(n), torch.arange(150, 450)])  # of class 0
    starts = ClassGaussian(rank=5).fit(images[few], labels[few], 3, seed=0)
    own = flat(images[:n])
    assert starts.components.shape == (3, 5, 6) and starts.components.isfinite().all()
    assert starts.mean[0].numpy() == pytest.approx(own.mean(0), abs=1e-6)
    assert covariance(starts, 0) == pytest.approx(np.cov(own.T, ddof=0).reshape(6, 6), abs=1e-7, rel=1e-3)
    assert np.linalg.matrix_rank(covariance(starts, 0), tol=1e-9) == n - 1
    if n == 1:
        assert drawn(starts, 0, 3) == pytest.approx(np.repeat(own, 3, 0), abs=1e-5)
    assert np.linalg.matrix_rank(covariance(starts, 1), tol=1e-9) == 5


def test_draws_are_clamped_to_the_model_range(generator: torch.Generator) -> None:
    images = torch.tensor([[0, 255], [0, 0]], dtype=torch.uint8).repeat(20, 1).view(40, 1, 1, 2)
    starts = Gaussian().fit(images, torch.zeros(40, dtype=torch.long), 1, seed=0)
    draws = starts(torch.zeros(2000, dtype=torch.long), generator)
    assert draws[..., 0].eq(-1).all()
    assert draws.min() == -1 and draws.max() == 1
    outside = (draws[..., 1].abs() == 1).double().mean()
    assert float(outside) == pytest.approx(0.3173, abs=0.04)  # mean 0, deviation 1


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_a_function_of_the_generator(kind: Start, images: torch.Tensor, labels: torch.Tensor) -> None:
    starts = kind.fit(images, labels, 3, seed=0)
    first, again, other = (starts(torch.arange(3), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("global_generators")
def test_fits_and_draws_leave_every_global_generator_alone(kind: Start, images: torch.Tensor, labels: torch.Tensor) -> None:
    kind.fit(images, labels, 3, seed=0)(torch.arange(3), torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Gaussian(rank=8), ClassGaussian(rank=8)])
def test_a_fit_is_a_function_of_its_seed(kind: Gaussian | ClassGaussian) -> None:
    images, labels = correlated(200, (1, 10, 10), 6), torch.arange(200) % 2
    first = kind.fit(images, labels, 2, seed=3)
    torch.rand(5)
    again, other = kind.fit(images, labels, 2, seed=3), kind.fit(images, labels, 2, seed=4)
    assert torch.equal(first.mean, again.mean) and torch.equal(first.components, again.components)
    assert not torch.equal(first.components, other.components)  # a random sketch of the same spectrum
    deviations = [starts.components.norm(dim=2) for starts in (first, other)]
    torch.testing.assert_close(*deviations, rtol=0.02, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_restored_from_their_tensors_they_draw_the_same(kind: Start, images: torch.Tensor, labels: torch.Tensor) -> None:
    starts = kind.fit(images, labels, 3, seed=0)
    back = kind.restored({name: tensor.clone() for name, tensor in starts.tensors().items()}, SMALL)
    assert type(back) is type(starts) and back.shape == starts.shape == SMALL
    one, other = (these(torch.tensor([2, 0, 1]), torch.Generator().manual_seed(9)) for these in (starts, back))
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_leaves_the_bytes_alone(kind: Start, images: torch.Tensor, labels: torch.Tensor) -> None:
    kept = images.clone()
    kind.fit(images, labels, 3, seed=0)
    assert torch.equal(images, kept)
