"""Scores of how much an image looks like the training data; in all of them high = in-distribution."""

from collections.abc import Callable

from gmmcli.core.energy import log_density
from gmmcli.metrics.outputs import Outputs
from gmmcli.types import Energies, Logits

Score = Callable[[Outputs, float], Energies]


def log_px(outputs: Outputs, gamma2: float) -> Energies:
    """``log p(x)`` up to a constant."""
    return log_density(outputs.logits.double(), gamma2)


def log_odds(logits: Logits) -> Energies:
    """Return the log odds of the most likely class, ``log p / (1 - p)``: ordered as p itself, without the ties where p rounds to 1."""
    ordered = logits.double().sort(1, descending=True).values
    return ordered[:, 0] - ordered[:, 1:].logsumexp(1)


def max_py(outputs: Outputs, gamma2: float) -> Energies:
    """``max_y p(y|x)``, as its log odds."""
    return log_odds(outputs.logits.double() / gamma2)


def mass(outputs: Outputs, gamma2: float) -> Energies:
    """Approximate mass, ``-||d log p(x) / dx||_2`` (Grathwohl et al. 2020): flat where the data is typical."""
    assert outputs.mass is not None, "the pass was made without gradients"
    return -outputs.mass.double()


def distance(outputs: Outputs, gamma2: float) -> Energies:
    """Minus half the squared distance to the nearest mean; for a linear head the largest logit."""
    return outputs.logits.double().amax(1)


SCORES: dict[str, Score] = {"log_px": log_px, "max_py": max_py, "mass": mass, "distance": distance}
