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
from statistics import median

import torch

from gmmcli.data.dataset import Dataset, Split
from gmmcli.distributed import joined
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step

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


def main() -> None:
    """Alternate, and print images per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="in a turn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    n, recipe = arguments.processes, RECIPE.format(batch_size=arguments.batch_size, precision=arguments.precision)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")

    def started(rank: int, size: int) -> Connection:
        here, there = context.Pipe()
        context.Process(target=work, args=(there, rank, size, port, recipe, arguments.steps), daemon=True).start()
        return here

    alone, together = [started(0, 1) for _ in range(n)], [started(rank, n) for rank in range(n)]
    modes = {"one process": alone[:1], f"{n} joined": together, f"{n} apart": alone}
    images = {name: arguments.steps * arguments.batch_size * (n if workers is alone else 1) for name, workers in modes.items()}
    rates: dict[str, list[float]] = {name: [] for name in modes}
    for turn in range(arguments.rounds + 1):  # the first is to warm up
        for name, workers in modes.items():
            for worker in workers:
                worker.send(True)
            seconds = max(worker.recv() for worker in workers)
            if turn:
                rates[name].append(images[name] / seconds)
    for worker in (*alone, *together):
        worker.send(False)
    print(f"{arguments.precision}, batch {arguments.batch_size} in all, {arguments.rounds} rounds of {arguments.steps} steps")
    for name, rate in rates.items():
        ratios = [own / base for own, base in zip(rate, rates["one process"], strict=True)]
        print(f"{name:12}  {median(rate):7.1f} images/s  ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
