"""Time training steps in one and in several processes: ``python benchmarks/scaling.py``.

A generative WRN-16-2 on 32 x 32 images, one thread a process, the same batch of all processes together: N joined by gloo against one alone.
Beside them N that do not know each other, each with a batch of its own: what the machine gives to N processes at all, which on hyperthreads
of one core is much less than N. The three take turns, so that a machine whose speed drifts is the same for all; ratios are medians.
"""

import argparse
import multiprocessing
import os
import socket
import time
from multiprocessing.connection import Connection

import torch

from gmmcli.data.dataset import Dataset, Split
from gmmcli.distributed import joined
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step
from table import Figure, ratios, table

CLASSES, IMAGES = 10, 1024
RECIPE = """
name = "scaling"
[data]
batch_size = {batch_size}
noise_std = 0.03
[model]
backbone = {{ kind = "wide-resnet", depth = 16, width = 2 }}
[chains]
buffer_size = 1000
sampler = {{ kind = "sgld", n_steps = 10 }}
[compute]
device = "cpu"
precision = "{precision}"
[[stages]]
epochs = 1000
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
"""


def images_and_labels(n: int) -> Split:
    """Noise with labels."""
    generator = stream("cpu", 1, "benchmark", n)
    return Split(torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8), torch.arange(n) % CLASSES)


def work(turns: Connection, rank: int, size: int, port: int, recipe: str, n_steps: int) -> None:
    """Take steps each time the parent says so, and tell how long they took; one of ``size`` processes that have joined each other."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in where.items()})
    with joined():
        few = images_and_labels(2 * CLASSES)
        setup = Setup.prepare(Recipe.loads(recipe), Dataset("noise", tuple(map(str, range(CLASSES))), images_and_labels(IMAGES), few, few))
        state = setup.initial_state()
        update = GuardedStep(state.optimizer, 1e30, setup.device)
        while turns.recv():
            started = time.perf_counter()
            for _ in range(n_steps):
                training_step(setup, state, update)
            turns.send(time.perf_counter() - started)


def measure(processes: int = 2, rounds: int = 7, steps: int = 2, batch_size: int = 64, precision: str = "fp32") -> list[Figure]:
    """Images a second of one process, of N joined and of N apart, and the ratios to one."""
    recipe = RECIPE.format(batch_size=batch_size, precision=precision)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")

    def started(rank: int, size: int) -> Connection:
        here, there = context.Pipe()
        context.Process(target=work, args=(there, rank, size, port, recipe, steps), daemon=True).start()
        return here

    alone, together = [started(0, 1) for _ in range(processes)], [started(rank, processes) for rank in range(processes)]
    modes = {"1 process": alone[:1], f"{processes} joined": together, f"{processes} apart": alone}
    images = {name: steps * batch_size * (processes if workers is alone else 1) for name, workers in modes.items()}
    rates: dict[str, list[float]] = {name: [] for name in modes}
    for turn in range(rounds + 1):  # the first is to warm up
        for name, workers in modes.items():
            for worker in workers:
                worker.send(True)
            seconds = max(worker.recv() for worker in workers)
            if turn:
                rates[name].append(images[name] / seconds)
    for worker in (*alone, *together):
        worker.send(False)
    one, *others = rates
    return [
        *(Figure(name, "images/s", tuple(found)) for name, found in rates.items()),
        *(ratios(f"{name} / 1", rates[name], rates[one]) for name in others),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="in a turn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    print(table({"scaling": measure(**vars(parser.parse_args()))}))


if __name__ == "__main__":
    main()
