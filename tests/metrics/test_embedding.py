import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from gmmcli.data.digits import Digits
from gmmcli.errors import RecipeError
from gmmcli.metrics.embedding import check_enough, embed, embedding_protocol, embedding_values
from gmmcli.metrics.intervals import wilson_interval


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(seed: int, dim: int, each: int = 20, n_classes: int = 3) -> tuple[Tensor, Tensor]:
    """Balls far from each other, and which one each point is of."""
    labels = torch.arange(n_classes).repeat_interleave(each)
    return normal(seed, len(labels), dim) + 20 * torch.eye(dim)[labels], labels


def leave_one_out(points: np.ndarray, labels: Tensor) -> float:
    accuracy: float = cross_val_score(KNeighborsClassifier(5), points, labels.numpy(), cv=LeaveOneOut()).mean()
    return accuracy


def trustworthiness_by_ranks(features: np.ndarray, plane: np.ndarray, k: int) -> float:
    """Venna and Kaski 2001, Eq. 2: how far from a point in truth those lie that are its neighbours in the plane only."""
    n, penalty = len(features), 0
    true, shown = pairwise_distances(features), pairwise_distances(plane)
    for i in range(n):
        rank = {j: r for r, j in enumerate(np.argsort(true[i]))}  # 0 is the point itself
        penalty += sum(max(0, rank[j] - k) for j in np.argsort(shown[i])[1 : k + 1])
    return 1 - 2 * penalty / (n * k * (2 * n - 3 * k - 1))


@pytest.mark.parametrize("dim", [4, 80])
def test_blobs_stay_apart_in_the_plane(dim: int) -> None:
    features, labels = blobs(1, dim)
    plane = embed(features, seed=1)
    assert plane.shape == (60, 2)
    assert np.isfinite(plane).all()
    values = embedding_values(features, plane, labels)
    assert (values["knn_accuracy"], values["knn_accuracy_features"]) == (1, 1)
    assert values["trustworthiness"] > 0.8


def test_the_same_seed_gives_the_same_plane() -> None:
    features, _ = blobs(1, 6, each=8)
    assert np.array_equal(embed(features, seed=3), embed(features.clone(), seed=3))


def test_few_images_are_embedded_too_but_not_ten() -> None:
    plane = embed(normal(1, 11, 60), seed=1)
    assert plane.shape == (11, 2)
    assert len(np.unique(plane, axis=0)) == 11
    with pytest.raises(RecipeError, match="t-SNE of 10 images says nothing"):
        check_enough(10)
    check_enough(11)


def test_digits_are_told_apart_in_the_plane_as_in_their_pixels() -> None:
    images, labels = Digits().load().test.batch()
    features, labels = images[:150].flatten(1).float(), labels[:150]
    values = embedding_values(features, embed(features, seed=1), labels)
    assert values["knn_accuracy_features"] > 0.8  # by chance 0.1
    assert values["knn_accuracy"] > values["knn_accuracy_features"] - 0.1
    assert values["trustworthiness"] > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_trustworthiness_is_that_of_its_definition(seed: int) -> None:
    features, plane = normal(seed, 30, 8), normal(seed + 10, 30, 2)
    values = embedding_values(features, plane.numpy(), torch.zeros(30, dtype=torch.long))
    assert values["trustworthiness"] == pytest.approx(trustworthiness_by_ranks(features.numpy(), plane.numpy(), 5))
    assert values["trustworthiness"] < 0.8


def test_a_plane_that_is_the_features_is_trusted_and_as_accurate() -> None:
    features, labels = normal(1, 40, 2), torch.arange(40) % 3
    values = embedding_values(features, features.numpy() * 7 + 1, labels)
    assert values["trustworthiness"] == 1
    assert values["knn_accuracy"] == values["knn_accuracy_features"]


@pytest.mark.parametrize("n_classes", [2, 4])  # among two there are no ties; scikit-learn's go to the lower class too
def test_accuracies_are_scikit_learns_leave_one_out(n_classes: int) -> None:
    labels = torch.arange(30) % n_classes
    features = normal(1, 30, 6) + 1.5 * torch.eye(6)[labels]
    plane = features[:, :2].numpy()
    values = embedding_values(features, plane, labels)
    assert values["knn_accuracy"] == pytest.approx(leave_one_out(plane, labels))
    assert values["knn_accuracy_features"] == pytest.approx(leave_one_out(features.numpy(), labels))
    assert 1 / n_classes < values["knn_accuracy_features"] < 1


def test_a_point_has_no_vote_on_itself() -> None:
    labels = torch.tensor([0] * 3 + [1] * 9)
    plane = np.arange(12.0)[:, None] * [1, 0] + np.where(labels.numpy() == 0, 0, 100)[:, None]  # three alone: two of five are their own
    assert embedding_values(torch.from_numpy(plane), plane, labels)["knn_accuracy"] == 0.75


def test_the_protocol_says_how() -> None:
    protocol = embedding_protocol(7)
    assert protocol.pop("intervals").startswith("95%, this plane")
    assert protocol == {"method": "PCA to at most 50 components, then t-SNE", "seed": 7, "neighbours": 5}


def test_every_figure_has_an_interval_of_its_images_around_it() -> None:
    labels = torch.arange(60) % 4
    features = normal(1, 60, 6) + 1.5 * torch.eye(6)[labels]
    values = embedding_values(features, features[:, :2].numpy(), labels)
    for name in ("trustworthiness", "knn_accuracy", "knn_accuracy_features"):
        low, high = values[f"{name}_ci95"]
        assert 0 <= low < values[name] < high <= 1
    assert values["knn_accuracy_ci95"] == list(wilson_interval(round(60 * values["knn_accuracy"]), 60))


def test_copies_among_the_images_are_each_others_nearest() -> None:
    features = normal(1, 30, 8).repeat_interleave(7, 0)
    assert embedding_values(features, features[:, :2].numpy(), torch.arange(210) % 3)["trustworthiness"] == 1
