"""Heads map features to logits, ``log p(phi | y) + const``; everything downstream is a function of logits."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from gmmcli.core import protocols
from gmmcli.core.energy import squared_distances
from gmmcli.core.means import max_mahalanobis_means
from gmmcli.registry import Registry
from gmmcli.types import Features, Logits, Positive


class GaussianHead(nn.Module):
    """Unit-variance Gaussians in feature space: ``logits[k] = -1/2 ||phi - mu_k||^2``."""

    means: Tensor

    def forward(self, features: Features) -> Logits:
        """Return unscaled logits, shape (batch, class)."""
        return -squared_distances(features, self.means) / 2


class MaxMahalanobisHead(GaussianHead):
    """Means fixed on a simplex: nothing to learn (Alg. 2)."""

    def __init__(self, n_classes: int, dim: int, radius: float) -> None:
        super().__init__()
        self.register_buffer("means", max_mahalanobis_means(n_classes, dim, radius))


class LDAHead(GaussianHead):
    """Learnt means, starting from the simplex: the plain LDA that the paper set aside (Sec. 3)."""

    def __init__(self, n_classes: int, dim: int, radius: float) -> None:
        super().__init__()
        self.means = nn.Parameter(max_mahalanobis_means(n_classes, dim, radius))


class LinearHead(nn.Linear):
    """The usual last layer: logits are free scores, not distances (softmax, JEM, IGEBM)."""


@dataclass(frozen=True, kw_only=True)
class MaxMahalanobis:
    """Head table: class means fixed at maximal mutual distance."""

    has_means: ClassVar[bool] = True
    kind: Literal["max-mahalanobis"] = "max-mahalanobis"
    radius: Positive = 10.0
    """C, the norm of every mean."""

    def build(self, n_classes: int, dim: int) -> nn.Module:
        """Build the head; raises ValueError when the simplex does not fit into ``dim`` features."""
        return MaxMahalanobisHead(n_classes, dim, self.radius)


@dataclass(frozen=True, kw_only=True)
class LDA:
    """Head table: class means learnt with the network."""

    has_means: ClassVar[bool] = True
    kind: Literal["lda"] = "lda"
    radius: Positive = 10.0
    """Norm of the means at the start."""

    def build(self, n_classes: int, dim: int) -> nn.Module:
        """Build the head; raises ValueError when the starting simplex does not fit into ``dim`` features."""
        return LDAHead(n_classes, dim, self.radius)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Head table: a linear layer."""

    has_means: ClassVar[bool] = False
    kind: Literal["linear"] = "linear"

    def build(self, n_classes: int, dim: int) -> nn.Module:
        """Build the head."""
        return LinearHead(dim, n_classes)


HEADS: Registry[type[protocols.Head]] = Registry("heads", {"max-mahalanobis": MaxMahalanobis, "lda": LDA, "linear": Linear})
