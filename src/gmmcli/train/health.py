"""Chains that no longer do their work: seen while training goes on, said, and put on record."""

from typing import Any

STILL = 1 / 255
"""A visit that changes an image's pixels by less than this (root mean square, model range), half a grey level, shows no change."""
TOO_MANY = 0.5  # share of still chains
FAR = 10.0  # energy of samples in units of that of real images, where both are squared distances
LEAST = 1e-30  # real energy to divide by
PATIENCE = 5  # log lines in a row


class ChainWatch:
    """Told every line of metrics.jsonl, it says once what has been wrong with the chains for a while, and again when it recurs."""

    def __init__(self, never_negative: bool) -> None:
        self.never_negative = never_negative
        """Whether the energies of the lines are squared distances, which can be compared by their ratio."""
        self.ailing = 0

    def __call__(self, line: dict[str, Any]) -> str | None:
        """Return what to warn of at this line, if anything."""
        complaint = self.complaint(line)
        self.ailing = self.ailing + 1 if complaint else 0
        return complaint if self.ailing == PATIENCE else None

    def complaint(self, line: dict[str, Any]) -> str | None:
        """Return what this line alone shows."""
        if line.get("still", 0.0) > TOO_MANY:
            return (
                f"{line['still']:.0%} of the chains no longer move, and training is discriminative in all but name; "
                "take longer steps (chains.sampler.step_size) or steps of one length (chains.sampler.kind=fixed-length)"
            )
        if self.never_negative and "energy_model" in line and line["energy_model"] > FAR * line["energy_data"]:
            ratio = line["energy_model"] / max(line["energy_data"], LEAST)
            return (
                f"samples have {ratio:,.0f} times the energy of real images, so that chains "
                "get nowhere and the model learns nothing from them; start chains from the data (chains.start.kind=class-gaussian), "
                "pool instead of striding (model.backbone.downsample=avg-pool), or take other steps (chains.sampler)"
            )
        return None
