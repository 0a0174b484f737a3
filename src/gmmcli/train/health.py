"""Warnings, during training, about chains that no longer work and about a loss that grows out of bounds."""

from typing import Any

import torch
from torch import Tensor

STILL = 1 / 255
"""A chain is still if a visit changes its pixels by less than this, half a grey level (root mean square, in [-1, 1])."""
TOO_MANY = 0.5  # proportion of still chains
FAR = 10.0  # energy of samples over that of real images, where both are squared distances
LEAST = 1e-30  # avoids a division by zero
PATIENCE = 5  # consecutive log lines
EARLY = 1 / 20
"""Proportion of guard.max_loss: by default 500, where the features of a new network have a loss of C^2 / 2 = 50."""


class ChainWatch:
    """Called with every regular line of metrics.jsonl; warns once a problem has lasted ``PATIENCE`` lines, and again if it recurs."""

    def __init__(self, recognised: float | None) -> None:
        self.recognised = recognised
        """The energy below which an image is certainly of its class (``recognised_energy``); None where energies are no squared
        distances, whose ratio says nothing."""
        self.unhealthy_lines = 0

    def __call__(self, line: dict[str, Any]) -> str | None:
        """Return the warning due at this line, if any."""
        complaint = self.complaint(line)
        self.unhealthy_lines = self.unhealthy_lines + 1 if complaint else 0
        return complaint if self.unhealthy_lines == PATIENCE else None

    def complaint(self, line: dict[str, Any]) -> str | None:
        """Return the problem that this line shows, if any."""
        if line.get("still", 0.0) > TOO_MANY:
            return (
                f"{line['still']:.0%} of the chains no longer move, so training is effectively discriminative; "
                "take longer steps (chains.sampler.step_size) or steps of one length (chains.sampler.kind=fixed-length)"
            )
        if self.recognised is not None and line.get("energy_model", 0.0) > max(FAR * line["energy_data"], self.recognised):
            ratio = line["energy_model"] / max(line["energy_data"], LEAST)
            return (
                f"samples have {ratio:,.0f} times the energy of real images: chains do not reach "
                "low energies and the model learns nothing from them; start chains from the data (chains.start.kind=class-gaussian), "
                "use pooling instead of strides (model.backbone.downsample=avg-pool), or change the sampler (chains.sampler)"
            )
        return None


class LossWatch:
    """Called with the loss of every step that the host knows of; warns, once, when it has grown to ``EARLY`` of ``guard.max_loss``."""

    def __init__(self, max_loss: float, warned: bool = False) -> None:
        self.limit = EARLY * max_loss
        self.warned = warned

    def __call__(self, loss: float) -> str | None:
        """Return the warning due at this step, if any."""
        if self.warned or not abs(loss) > self.limit:
            return None
        self.warned = True
        return (
            f"the loss has grown to {loss:,.0f} and may diverge; lower the learning rate (optim.learning_rate), the length of chain steps "
            "(chains.sampler.step_size) or the weight of the contrast (objective.beta), or set a margin (objective.margin)"
        )


def recognised_energy(means: Tensor) -> float:
    """The energy of a point half-way between the two nearest means, shape (class, d): with less, no other mean is as near."""
    return float(torch.pdist(means.detach()).min() ** 2 / 8)
