"""Scores of how much an image looks like the training data; in all of them high = in-distribution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gmmcli.core.energy import log_density
from gmmcli.errors import RecipeError
from gmmcli.metrics.outputs import Outputs
from gmmcli.registry import Registry
from gmmcli.types import Energies, Labels, Logits

NEIGHBOURS = 50
"""Sun et al.'s k for CIFAR-10."""
AT_A_TIME = 250  # images whose distances to all others are in memory


@dataclass(frozen=True)
class Score:
    """A score by its values, or one that is fitted before it has any."""

    label: str
    """As formulas write it."""
    values: Callable[[Outputs, float], Energies] | None = None
    """Of a model's outputs and its gamma^2, shape (batch,), high = in-distribution; None before ``fit``."""
    needs_gradient: bool = False
    """It reads ``Outputs.mass``, for which the pass takes gradients."""
    fit: Callable[[Outputs, Labels, nn.Module], "Fitted"] | None = None
    """Of the outputs for training images, their labels, and the model's head."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is part of its protocol: how it was fitted."""

    @property
    def needs_training(self) -> bool:
        """It is fitted on the model's outputs for training images, one more pass."""
        return self.fit is not None

    def fitted(self, training: Outputs, labels: Labels, head: nn.Module) -> "Score":
        """This score with its values, fitted where it has to be."""
        if self.fit is None:
            return self
        values, facts = self.fit(training, labels, head)
        return replace(self, values=values, facts={"n_training": len(labels)} | facts)

    def __call__(self, outputs: Outputs, gamma2: float) -> Energies:
        """Return the scores of images, shape (batch,)."""
        assert self.values is not None, f"{self.label} is not fitted"
        return self.values(outputs, gamma2)


Fitted = tuple[Callable[[Outputs, float], Energies], dict[str, Any]]
"""The values of a score, and the facts of its fit."""


def log_px(outputs: Outputs, gamma2: float) -> Energies:
    """``log p(x)`` up to a constant."""
    return log_density(outputs.logits.double(), gamma2)


def log_odds(logits: Logits) -> Energies:
    """Return the log odds of the most likely class, ``log p / (1 - p)``: ordered as p itself, without the ties where p rounds to 1."""
    ordered = logits.double().sort(1, descending=True).values
    return ordered[:, 0] - ordered[:, 1:].logsumexp(1)


def max_py(outputs: Outputs, gamma2: float) -> Energies:
    """``max_y p(y|x)``, as its log odds (Hendrycks and Gimpel 2017)."""
    return log_odds(outputs.logits.double() / gamma2)


def mass(outputs: Outputs, gamma2: float) -> Energies:
    """Approximate mass, ``-||d log p(x) / dx||_2`` (Grathwohl et al. 2020): flat where the data is typical."""
    assert outputs.mass is not None, "the pass was made without gradients"
    return -outputs.mass.double()


def max_logit(outputs: Outputs, gamma2: float) -> Energies:
    """``max_k z_k`` (Hendrycks et al. 2022); for a Gaussian head minus half the squared distance to the nearest mean."""
    return outputs.logits.double().amax(1)


def energy(outputs: Outputs, gamma2: float) -> Energies:
    """``logsumexp_k z_k``, minus the energy at temperature 1 (Liu et al. 2020, Eq. 4); ``log_px`` where gamma^2 is 1."""
    return outputs.logits.double().logsumexp(1)


def mahalanobis(training: Outputs, labels: Labels, head: nn.Module) -> Fitted:
    """Minus the squared Mahalanobis distance to the nearest class mean, under one covariance (Lee et al. 2018, Eqs. 1 and 2).

    Of the features before the head, without the paper's perturbation of the input and its ensemble of layers.
    """
    features = training.features.double()
    classes = torch.unique(labels)
    means = torch.stack([features[labels == k].mean(0) for k in classes])
    centred = features - means[torch.searchsorted(classes, labels)]
    precision = torch.linalg.pinv(centred.T @ centred / len(features), hermitian=True)

    def values(outputs: Outputs, gamma2: float) -> Energies:
        gaps = (outputs.features.double() - mean for mean in means)
        return torch.stack([-((gap @ precision) * gap).sum(1) for gap in gaps]).amax(0)

    return values, {}


def knn(training: Outputs, labels: Labels, head: nn.Module) -> Fitted:
    """Minus the distance to the k-th nearest of the training images' features, all of length 1 (Sun et al. 2022, Eq. 1)."""
    bank, k = normalize(training.features.double()), min(NEIGHBOURS, len(labels))

    def values(outputs: Outputs, gamma2: float) -> Energies:
        chunks = torch.split(normalize(outputs.features.double()), AT_A_TIME)
        return -torch.cat([torch.cdist(chunk, bank).topk(k, largest=False).values[:, -1] for chunk in chunks])

    return values, {"k": k}


def vim(training: Outputs, labels: Labels, head: nn.Module) -> Fitted:
    """The energy of the logits less a virtual one, the features' distance to a principal subspace (Wang et al. 2022, Eqs. 5 to 7).

    The subspace has half as many dimensions as the features, as OpenOOD's 256 of 512.
    """
    weight, bias = _as_linear(head)
    features = training.features.double()
    # a simplex of means has one dimension less than means: what float32 rounds its last singular value to is none
    rounding = max(weight.shape) * torch.finfo(torch.float32).eps
    origin, dims = -torch.linalg.pinv(weight, rtol=rounding) @ bias, features.shape[1] // 2
    centred = features - origin
    ascending = torch.linalg.eigh(centred.T @ centred / len(features)).eigenvectors
    residual = ascending[:, : features.shape[1] - dims]
    alpha = (features @ weight.T + bias).amax(1).mean() / (centred @ residual).norm(dim=1).mean()

    def values(outputs: Outputs, gamma2: float) -> Energies:
        features = outputs.features.double()
        virtual: Tensor = alpha * ((features - origin) @ residual).norm(dim=1)
        return (features @ weight.T + bias).logsumexp(1) - virtual

    return values, {"dims": dims}


def _as_linear(head: nn.Module) -> tuple[Tensor, Tensor]:
    """A head's weight matrix and bias; Gaussians with means mu classify as ``<mu_k, phi> - 1/2 ||mu_k||^2`` does, less its mean over k.

    So centred, the largest logit is never negative, and neither is alpha: with it, the distance to the subspace would count for an image.
    """
    weight, bias, means = (getattr(head, name, None) for name in ("weight", "bias", "means"))
    if isinstance(weight, Tensor) and isinstance(bias, Tensor):
        return weight.detach().double().cpu(), bias.detach().double().cpu()
    if isinstance(means, Tensor):
        weight = means.detach().double().cpu()
        bias = -weight.square().sum(1) / 2
        return weight - weight.mean(0), bias - bias.mean()
    raise RecipeError("the score vim needs a head with a weight matrix and a bias, or with class means", "leave out --score vim")


SCORES: Registry[Score] = Registry(
    "scores",
    {
        "log_px": Score("log p(x)", log_px),
        "max_py": Score("max p(y|x)", max_py),
        "mass": Score("-||d log p(x)/dx||", mass, needs_gradient=True),
        "max_logit": Score("max logit", max_logit),
        "energy": Score("energy, T = 1", energy),
        "mahalanobis": Score("Mahalanobis", fit=mahalanobis),
        "knn": Score("kNN", fit=knn),
        "vim": Score("ViM", fit=vim),
    },
    Score,
)
ALL = "all"


def score_names(asked: Sequence[str] | None) -> list[str]:
    """The scores meant by names of a command line: ``all``, or without any those that need no pass over training images.

    Raises:
        RecipeError: there is no such score, or what a package adds is none.
    """
    names = [one for name in asked or (ALL,) for one in (SCORES if name == ALL else (name,))]
    found = {name: SCORES.find(name, "score") for name in names}
    return [name for name, score in found.items() if asked or not score.needs_training]


def score_label(name: str) -> str:
    """A score as formulas write it; its name where the package that measured it is not installed."""
    return SCORES[name].label if name in SCORES else name
