"""t-SNE: features in the plane."""

from typing import Any

import numpy as np

from gmmcli.errors import RecipeError
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
        accuracy among the features, ``knn_accuracy_features``, to compare with.
    """
    from sklearn.manifold import trustworthiness

    return {
        "trustworthiness": float(trustworthiness(features.numpy(), plane, n_neighbors=NEIGHBOURS)),
        "knn_accuracy": _leave_one_out(plane, labels.numpy()),
        "knn_accuracy_features": _leave_one_out(features.numpy(), labels.numpy()),
    }


def _leave_one_out(points: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the majority among each point's nearest others; a tie goes to the lower class."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(points).kneighbors(return_distance=False)  # of the points, themselves left out
    votes = np.eye(labels.max() + 1, dtype=int)[labels[found]].sum(1)
    return float((votes.argmax(1) == labels).mean())


def embedding_protocol(seed: int) -> dict[str, Any]:
    """How a plane is made."""
    return {"method": f"PCA to at most {COMPONENTS} components, then t-SNE", "seed": seed, "neighbours": NEIGHBOURS}
