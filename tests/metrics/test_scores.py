from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from extension import install
from gmmcli import registry
from gmmcli.core.heads import LinearHead, MaxMahalanobisHead
from gmmcli.errors import RecipeError
from gmmcli.metrics.outputs import Outputs
from gmmcli.metrics.scores import SCORES, energy, log_odds, log_px, mass, max_logit, max_py, score_label, score_names


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
def test_the_largest_logit_of_gaussians_is_minus_half_the_squared_distance_to_the_nearest_mean(
    gamma2: float, generator: torch.Generator
) -> None:
    head, features = MaxMahalanobisHead(4, 6, 3.0), 2 * torch.randn(30, 6, generator=generator)
    found = max_logit(said(head(features)), gamma2)
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


@pytest.mark.parametrize("name", ["log_px", "max_py", "max_logit", "energy"])
def test_an_image_at_a_class_mean_scores_highest(name: str) -> None:
    head = MaxMahalanobisHead(4, 6, 3.0)
    on_the_way = torch.linspace(1, 0, 11)[:, None] * head.means[2]  # to the middle of all means
    score = SCORES[name](said(head(on_the_way)), 1.0)
    assert bool((score.diff() < 0).all())


def test_energy_is_logsumexp_of_the_logits_whatever_the_variance(logits: Tensor) -> None:
    expected = logsumexp(logits.double().numpy(), axis=1)
    assert energy(said(logits), 1.0).numpy() == pytest.approx(expected, rel=1e-14)
    assert energy(said(logits), 30.0).numpy() == pytest.approx(expected, rel=1e-14)


N_TRAINING, DIM, CLASSES = 400, 12, (0, 1, 3)  # a class without images


def passed(head: nn.Module, n: int, rng: torch.Generator) -> Outputs:
    features = torch.randn(n, DIM, generator=rng) * torch.linspace(0.2, 3, DIM) + torch.randn(DIM, generator=rng)
    return Outputs(features, head(features).detach(), None)


@pytest.fixture(params=["linear", "max-mahalanobis"])
def head(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(4)
    return LinearHead(DIM, 5) if request.param == "linear" else MaxMahalanobisHead(5, DIM, 3.0)


@pytest.fixture
def training(head: nn.Module, generator: torch.Generator) -> tuple[Outputs, Tensor]:
    labels = torch.tensor(CLASSES)[torch.randint(3, (N_TRAINING,), generator=generator)]
    return passed(head, N_TRAINING, generator), labels


def test_mahalanobis_is_scikit_learns_distance_to_the_nearest_mean(
    head: nn.Module, training: tuple[Outputs, Tensor], generator: torch.Generator
) -> None:
    images, (outputs, labels) = passed(head, 30, generator), training
    features, classes = outputs.features.double().numpy(), labels.numpy()
    means = {k: features[classes == k].mean(0) for k in CLASSES}
    tied = EmpiricalCovariance(assume_centered=True).fit(features - np.stack([means[k] for k in classes]))
    expected = -np.min([tied.mahalanobis(images.features.double().numpy() - mean) for mean in means.values()], axis=0)
    score = SCORES["mahalanobis"].fitted(outputs, labels, head)
    assert score(images, 2.0).numpy() == pytest.approx(expected, rel=1e-8)
    assert score.facts == {"n_training": N_TRAINING}


@pytest.mark.parametrize(("n", "k"), [(N_TRAINING, 50), (20, 20)])
def test_knn_is_scikit_learns_distance_to_the_kth_neighbour(
    n: int, k: int, head: nn.Module, training: tuple[Outputs, Tensor], generator: torch.Generator
) -> None:
    images, (outputs, labels) = passed(head, 300, generator), training  # more than one chunk
    few = Outputs(outputs.features[:n], outputs.logits[:n], None)
    unit, bank = (
        some / np.linalg.norm(some, axis=1, keepdims=True) for some in (images.features.double().numpy(), few.features.double().numpy())
    )
    expected = -NearestNeighbors(n_neighbors=k).fit(bank).kneighbors(unit)[0][:, -1]
    score = SCORES["knn"].fitted(few, labels[:n], head)
    assert score(images, 2.0).numpy() == pytest.approx(expected, rel=1e-8)
    assert score.facts == {"n_training": n, "k": k}


def test_vim_is_that_of_its_authors_code(head: nn.Module, training: tuple[Outputs, Tensor], generator: torch.Generator) -> None:
    """benchmark.py of ViM, in numpy; Gaussians by the linear layer that classifies as they do."""
    images, (outputs, labels) = passed(head, 30, generator), training
    if isinstance(head, LinearHead):
        w, b = (parameter.detach().double().numpy() for parameter in (head.weight, head.bias))
    else:
        w = head.means.double().numpy()
        b = -(w**2).sum(1) / 2
        w, b = w - w.mean(0), b - b.mean()
    train, features = outputs.features.double().numpy(), images.features.double().numpy()
    u = -np.matmul(np.linalg.pinv(w, rcond=1e-5), b)
    centred = EmpiricalCovariance(assume_centered=True).fit(train - u)
    eigenvalues, eigenvectors = np.linalg.eig(centred.covariance_)
    null_space = np.ascontiguousarray((eigenvectors.T[np.argsort(eigenvalues * -1)[DIM // 2 :]]).T)
    alpha = (train @ w.T + b).max(axis=-1).mean() / np.linalg.norm((train - u) @ null_space, axis=-1).mean()
    expected = -np.linalg.norm((features - u) @ null_space, axis=-1) * alpha + logsumexp(features @ w.T + b, axis=-1)
    score = SCORES["vim"].fitted(outputs, labels, head)
    assert score(images, 2.0).numpy() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert score.facts == {"n_training": N_TRAINING, "dims": DIM // 2}


def test_vim_is_low_outside_the_subspace_also_where_features_are_near_the_centre_of_all_means(generator: torch.Generator) -> None:
    """Logits with -1/2 ||mu||^2 are negative there, and alpha would be: the wrong way round."""
    head = MaxMahalanobisHead(4, 12, 3.0)
    features = torch.randn(90, 12, generator=generator) * torch.tensor([0.1] * 6 + [0.001] * 6)
    score = SCORES["vim"].fitted(Outputs(features, head(features), None), torch.arange(90) % 4, head)
    inside, outside = (score(Outputs(some, head(some), None), 1.0) for some in (features, features + torch.eye(12)[11]))
    assert bool((outside < inside).all())


def test_vim_refuses_a_head_that_is_not_linear(training: tuple[Outputs, Tensor]) -> None:
    with pytest.raises(RecipeError, match="needs a head with a weight matrix"):
        SCORES["vim"].fitted(*training, nn.ReLU())


def test_the_scores_meant_by_names() -> None:
    assert score_names(None) == ["log_px", "max_py", "mass", "max_logit", "energy"]
    assert score_names(["all"]) == [*score_names(None), "mahalanobis", "knn", "vim"]
    assert score_names(["knn", "mass", "knn"]) == ["knn", "mass"]
    with pytest.raises(RecipeError, match="no score 'enrgy'") as error:
        score_names(["log_px", "enrgy"])
    assert error.value.hint == "did you mean energy?"


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What a test installs is gone after it."""
    yield
    registry.installed.cache_clear()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("names", [None, ["all"], ["bare"]])
def test_what_a_package_adds_that_is_no_score_is_refused(names: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"bare": "def score(outputs, gamma2): ..."}, {"scores": {"bare": "bare:score"}})
    with pytest.raises(RecipeError, match="package others adds 'bare' to gmmcli's scores, which is no Score"):
        score_names(names)


def test_a_score_that_is_not_installed_is_shown_under_its_name() -> None:
    assert (score_label("log_px"), score_label("distance")) == ("log p(x)", "distance")
