"""What memory a training gains from step to step: ``python benchmarks/memory.py [--steps 1000]``.

Steps of `digits_gen` in one process, whose resident memory is read at every tenth of them; growth is from the first reading, after which
every buffer, moment and workspace exists, to the last.
"""

import argparse
import os
from pathlib import Path

from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step
from table import Figure, table


def resident(process: int | str = "self") -> float:
    """Resident memory of a process, this one say, in MiB (Linux)."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(steps: int = 1000) -> list[Figure]:
    """Memory along the way, and its growth."""
    setup = Setup.prepare(Recipe.load("digits_gen", [f"stages.0.epochs={1 + steps // 10}", "compute.device=cpu"]))
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e8, setup.device)
    read = []
    for step in range(1, steps + 1):
        training_step(setup, state, update)
        if step % (steps // 10) == 0:
            read.append(resident())
    return [Figure("resident", "MiB", tuple(read)), Figure("growth", f"MiB in {steps - steps // 10:,} steps", (read[-1] - read[0],))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    print(table({"memory": measure(parser.parse_args().steps)}))


if __name__ == "__main__":
    main()
