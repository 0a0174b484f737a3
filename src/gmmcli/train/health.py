"""Warnings, during training, about chains that no longer work."""

from typing import Any

STILL = 1 / 255
"""A chain is still if a visit changes its pixels by less than this, half a grey level (root mean square, in [-1, 1])."""
TOO_MANY = 0.5  # proportion of still chains
FAR = 10.0  # energy of samples over that of real images, where both are squared distances
LEAST = 1e-30  # avoids a division by zero
PATIENCE = 5  # consecutive log lines


class ChainWatch:
    """Called with every regular line of metrics.jsonl; warns once a problem has lasted ``PATIENCE`` lines, and again if it recurs."""

    def __init__(self, never_negative: bool) -> None:
        self.never_negative = never_negative
        """Whether energies are squared distances, whose ratio is meaningful."""
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
        if self.never_negative and "energy_model" in line and line["energy_model"] > FAR * line["energy_data"]:
            ratio = line["energy_model"] / max(line["energy_data"], LEAST)
            return (
                f"samples have {ratio:,.0f} times the energy of real images: chains do not reach "
                "low energies and the model learns nothing from them; start chains from the data (chains.start.kind=class-gaussian), "
                "use pooling instead of strides (model.backbone.downsample=avg-pool), or change the sampler (chains.sampler)"
            )
        return None
