"""Time a training step against a plain loop: ``python benchmarks/step.py``.

Ours (channels-last; one forward for real and sampled images; no parameter gradients in chains; fused Adam; memory kept from step to step;
float32 and, where the machine has it, bfloat16) against a plain loop with the arithmetic of the authors' code: float32 in NCHW, the energy
averaged over the batch before it is differentiated, real and sampled images in separate forwards. WRN-16-2, 32 x 32, batch 64, 10 sampler
steps. Each has a process of its own, and they take turns, so that a machine whose speed drifts is the same for all; the ratio is the median
over the rounds. With one thread (``--threads 1``) a process's own time counts, which other jobs lengthen less.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median

import torch

from gmmcli.core.chains import Chains
from gmmcli.core.compute import Compute, has_fast_bf16
from gmmcli.core.means import max_mahalanobis_means
from gmmcli.core.model import Model
from gmmcli.core.objectives import ContrastiveDivergence
from gmmcli.core.optim import Adam
from gmmcli.core.samplers import SGLD
from gmmcli.core.starts import UniformStarts
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.rng import stream
from gmmcli.train.guard import GuardedStep
from gmmcli.types import Batch

BATCH, CLASSES, SHAPE, SAMPLER_STEPS, BUFFER = 64, 10, (3, 32, 32), 10, 1000
BACKBONE = WideResNet(depth=16, width=2)
PLAIN = "plain fp32 NCHW"
Step = Callable[[Batch, torch.Generator], None]


def ours(precision: str) -> Step:
    """A training step of this package."""
    compute = Compute(device="cpu", precision="bf16" if precision == "bf16" else "fp32")
    device = compute.select()
    model = compute.place(Model(BACKBONE).build(CLASSES, SHAPE[0], seed=1), device)
    starts, generator = UniformStarts(SHAPE), stream(device, 1, "buffer")
    chains = Chains(buffer_size=BUFFER, sampler=SGLD(n_steps=SAMPLER_STEPS)).build(starts, CLASSES, generator)
    update = GuardedStep(Adam().build(model.parameters()), 1e8, device)
    objective = ContrastiveDivergence()

    def step(batch: Batch, generator: torch.Generator) -> None:
        negatives = chains(model, batch.labels, generator)
        update(lambda: objective(model, batch, negatives), 1e-4)
        update.raise_if_diverged(0)

    return step


def plain() -> Step:
    """The same training step, written plainly."""
    torch.manual_seed(1)
    network = BACKBONE.build(SHAPE[0])
    means = max_mahalanobis_means(CLASSES, BACKBONE.dim, 10.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    buffer = torch.rand(BUFFER, *SHAPE) * 2 - 1

    def step(batch: Batch, generator: torch.Generator) -> None:
        where = torch.randint(BUFFER, (BATCH,), generator=generator)
        x, latents = buffer[where], means[batch.labels]
        network.eval()
        for _ in range(SAMPLER_STEPS):
            x = x.detach().requires_grad_()
            energy = ((network(x) - latents) ** 2).sum(1).mean() / 2
            (gradient,) = torch.autograd.grad(energy, [x])
            x = (x - gradient).clamp(-1, 1)
        network.train()
        x = x.detach()
        buffer[where] = x
        real = ((network(batch.images) - latents) ** 2).sum(1).mean() / 2
        sampled = ((network(x) - latents) ** 2).sum(1).mean() / 2
        optimizer.zero_grad()
        torch.autograd.backward(real - 0.5 * sampled)
        optimizer.step()

    return step


CONTENDERS: dict[str, Callable[[], Step]] = {PLAIN: plain, "ours fp32": partial(ours, "fp32"), "ours bf16": partial(ours, "bf16")}


def begin(name: str, threads: int) -> None:
    """Make this process that of a contender."""
    global _step, _batch, _generator
    torch.set_num_threads(threads)
    _step, _generator = CONTENDERS[name](), stream("cpu", 1, "benchmark")
    _batch = Batch(torch.rand(BATCH, *SHAPE, generator=_generator) * 2 - 1, torch.randint(CLASSES, (BATCH,), generator=_generator))


def seconds() -> float:
    """Take one step in a contender's process."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    _step(_batch, _generator)
    return clock() - started


def main() -> None:
    """Alternate, and print images per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="measure bf16 even where it is emulated")
    arguments = parser.parse_args()
    names = list(CONTENDERS)
    if not arguments.bf16 and not has_fast_bf16(torch.device("cpu")):
        print("bfloat16 is not fast on this cpu: it is left out (--bf16 measures it all the same)")
        names.remove("ours bf16")
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, spawn, begin, (name, arguments.threads)) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(arguments.rounds + 1):
        for name, pool in pools.items():
            took = pool.submit(seconds).result()
            if turn:
                times[name].append(took)
    for name, own in times.items():
        ratios = [base / took for base, took in zip(times[PLAIN], own, strict=True)]
        print(f"{name:16}  {BATCH / median(own):7.1f} images/s  ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    for pool in pools.values():
        pool.shutdown()


if __name__ == "__main__":
    main()
