"""Time a training step with small and large buffers: ``python benchmarks/buffer.py``.

Steps of `digits_gen` with 1,000, 10,000 and 100,000 slots take turns in one process; medians, and ratios to the smallest.
"""

import argparse
import time
from statistics import median

from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step

SIZES, ROUNDS = (1_000, 10_000, 100_000), 41


def main() -> None:
    """Print milliseconds a step."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    trainings = {}
    for size in SIZES:
        setup = Setup.prepare(Recipe.load("digits_gen", [f"chains.buffer_size={size}"]))
        state = setup.initial_state()
        trainings[size] = (setup, state, GuardedStep(state.optimizer, 1e8, setup.device))
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(ROUNDS + 1):
        for size, training in trainings.items():
            started = time.perf_counter()
            training_step(*training)
            if turn:
                seconds[size].append(time.perf_counter() - started)
    for size, times in seconds.items():
        ratio = median(own / base for own, base in zip(times, seconds[SIZES[0]], strict=True))
        print(f"{size:>8,} slots  {1000 * median(times):6.1f} ms a step  ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
