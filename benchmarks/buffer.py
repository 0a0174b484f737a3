"""Time a training step with small and large buffers: ``python benchmarks/buffer.py``.

Steps of `digits_gen` with 1,000 to 1,000,000 slots take turns in one process; ratios are to the smallest, round by round.
"""

import argparse
import time

from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step
from table import Figure, ratios, table

SIZES, ROUNDS = (1_000, 10_000, 100_000, 1_000_000), 40


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """Milliseconds a step by size, and what times the smallest's that is."""
    trainings = {}
    for size in SIZES:
        setup = Setup.prepare(Recipe.load("digits_gen", [f"chains.buffer_size={size}", "compute.device=cpu"]))
        state = setup.initial_state()
        trainings[size] = (setup, state, GuardedStep(state.optimizer, 1e8, setup.device))
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(rounds + 1):
        for size, training in trainings.items():
            started = time.perf_counter()
            training_step(*training)
            if turn:
                seconds[size].append(time.perf_counter() - started)
    found = [Figure(f"{size:,} slots", "ms", tuple(1000 * took for took in own)) for size, own in seconds.items()]
    return found + [ratios(f"{size:,} slots / {SIZES[0]:,}", seconds[size], seconds[SIZES[0]]) for size in SIZES[1:]]


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table({"buffer": measure()}))


if __name__ == "__main__":
    main()
