"""What a network costs, told before anything is computed, and what the device gives."""

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from gmmcli.core import protocols
from gmmcli.core.batch import bytes_of_an_image

DAY = 86_400
LONGEST = 365 * DAY
"""Seconds that a command may take."""
SIDE, TURNS = 1024, 3


@dataclass(frozen=True)
class Cost:
    """Of one image."""

    parameters: int
    operations: int
    """Multiplications and additions of a forward pass."""
    kept: int
    """Bytes that it keeps for the backward pass, in float32."""

    @classmethod
    def of(cls, backbone: protocols.Backbone, shape: tuple[int, int, int]) -> "Cost":
        """Work it out on torch's meta device; of a backbone that cannot be built there nothing is known, and nothing counted."""
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                network, image = backbone.build(shape[0]).eval(), torch.empty(1, *shape)  # batch norm of one value has no variance
                with FlopCounterMode(display=False) as counted, torch.no_grad():
                    network(image)
                parameters = sum(parameter.numel() for parameter in network.parameters())
                return cls(parameters, counted.get_total_flops(), bytes_of_an_image(network, image))
        except (NotImplementedError, RuntimeError):
            return cls(0, 0, 0)


def operations_a_second(device: torch.device, precision: str) -> float:
    """Measure how many multiplications and additions a matrix product makes in a second, the fastest of a few."""
    matrix = torch.ones(SIDE, SIDE, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    shortest = float("inf")
    for _ in range(TURNS):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - started)
    return 2 * SIDE**3 / shortest
