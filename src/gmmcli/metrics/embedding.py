"""t-SNE: features in the plane."""

from typing import Any

import numpy as np
import torch

from gmmcli.errors import RecipeError
from gmmcli.metrics.accuracy import proportion
from gmmcli.metrics.intervals import OF_MEANS, mean_interval
from gmmcli.metrics.manifold import on_a_grid, squared_distances
from gmmcli.types import Features, Labels

COMPONENTS, NEIGHBOURS = 50, 5


def embed(features: Features, seed: int) -> np.ndarray:
    """Return features in the plane, shape (image, 2): PCA to at most 50 components, then t-SNE (van der Maaten and Hinton 2008)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = features.double().numpy()
    reduced = PCA(min(COMPONENTS, *rows.shape), random_state=seed).fit_transform(rows)
    plane: np.ndarray = TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=seed).fit_transform(reduced)
    return plane


def check_enough(n: int) -> None:
    """RecipeError for ten images or fewer: they have no neighbourhoods to keep."""
    if n <= 2 * NEIGHBOURS:
        raise RecipeError(f"t-SNE of {n} images says nothing", f"take more than {2 * NEIGHBOURS} (--n)")


def embedding_values(features: Features, plane: np.ndarray, labels: Labels) -> dict[str, Any]:
    """Measure the plane itself: is what is near there near in truth, and does the class of one's neighbours tell one's own?

    Returns:
        ``trustworthiness`` (Venna and Kaski 2001) and ``knn_accuracy``, leave-one-out, both with five neighbours; the same
        accuracy among the features, ``knn_accuracy_features``, to compare with. All with 95% intervals over the images, the
        neighbourhoods taken as they are.
    """
    trust = torch.from_numpy(_trust(features.numpy(), plane))
    values: dict[str, Any] = {"trustworthiness": float(trust.mean()), "trustworthiness_ci95": mean_interval(trust, 0.0, 1.0)}
    for name, points in (("knn_accuracy", plane), ("knn_accuracy_features", features.numpy())):
        found = proportion(torch.from_numpy(_leave_one_out(points, labels.numpy())))
        values |= {name: found["accuracy"], f"{name}_ci95": found["ci95"]}
    return values


def _trust(features: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """The trustworthiness of each point's neighbours in the plane, 0 to 1: how far down they come among its neighbours in truth."""
    n = len(plane)
    (own,), near = on_a_grid(features), _neighbours(plane)
    parts = []
    for rows, squares in squared_distances(own, own):
        itself = np.arange(n)[rows, None]
        np.put_along_axis(squares, itself, -1.0, axis=1)  # the nearest of all, also of equal ones
        to_near = np.take_along_axis(squares, near[rows], axis=1)
        parts.append(np.stack([(squares < column[:, None]).sum(1) for column in to_near.T], axis=1))
    beyond = np.maximum(0, np.concatenate(parts) - NEIGHBOURS).sum(1)
    trust: np.ndarray = 1 - 2 * beyond / (NEIGHBOURS * (2 * n - 3 * NEIGHBOURS - 1))
    return trust


def _neighbours(points: np.ndarray) -> np.ndarray:
    """The positions of each point's nearest others."""
    from sklearn.neighbors import NearestNeighbors

    found: np.ndarray = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(points).kneighbors(return_distance=False)
    return found


def _leave_one_out(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each point has the class of the majority of its nearest others; a tie goes to the lower class."""
    votes = np.eye(labels.max() + 1, dtype=int)[labels[_neighbours(points)]].sum(1)
    right: np.ndarray = votes.argmax(1) == labels
    return right


def embedding_protocol(seed: int) -> dict[str, Any]:
    """How a plane is made."""
    return {
        "method": f"PCA to at most {COMPONENTS} components, then t-SNE",
        "seed": seed,
        "neighbours": NEIGHBOURS,
        "intervals": f"95%, this plane and its neighbourhoods as they are: Wilson for accuracies, {OF_MEANS} for trustworthiness",
    }
