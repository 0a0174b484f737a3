"""Time a training step against a plain loop: ``python benchmarks/step.py``.

Ours (channels-last; one forward for real and sampled images; no parameter gradients in chains; fused Adam; memory kept from step to step;
float32 and, where the machine has it, bfloat16) against a plain loop with the arithmetic of the authors' code: float32 in NCHW, the energy
averaged over the batch before it is differentiated, real and sampled images in separate forwards. WRN-16-2, 32 x 32, batch 64, 10 sampler
steps. Each has a process of its own, and they take turns, so that a machine whose speed drifts is the same for all; the ratio is the median
over the rounds. Beside them large products of matrices, the most that the machine gives: a step's share of it is what it computes of its
multiplications and additions in the time of a product's. With one thread (``--threads 1``) a process's own time counts, which other jobs
lengthen less.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

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
from table import Figure, ratios, table

CLASSES, SHAPE, BUFFER = 10, (3, 32, 32), 1000
PLAIN = "plain fp32 NCHW"
Step = Callable[[Batch, torch.Generator], None]


@dataclass(frozen=True)
class Work:
    """What every contender computes."""

    depth: int = 16
    width: int = 2
    batch: int = 64
    sampler_steps: int = 10
    device: str = "cpu"
    matrix: int = 2048
    """Side of the matrices whose product shows what the machine can do."""

    @property
    def backbone(self) -> WideResNet:
        """The network."""
        return WideResNet(depth=self.depth, width=self.width)

    def data(self) -> tuple[Batch, torch.Generator]:
        """A batch, and what steps draw from."""
        generator = stream(self.device, 1, "benchmark")
        images = torch.rand(self.batch, *SHAPE, generator=generator, device=self.device) * 2 - 1
        return Batch(images, torch.randint(CLASSES, (self.batch,), generator=generator, device=self.device)), generator


def ours(work: Work, precision: str, compiler: str = "") -> Step:
    """A training step of this package; with ``compiler``, a backend of torch.compile, its network compiled."""
    compute = Compute(device="cuda" if work.device == "cuda" else "cpu", precision="bf16" if precision == "bf16" else "fp32")
    device = compute.select()
    model = compute.place(Model(work.backbone).build(CLASSES, SHAPE[0], seed=1), device)
    if compiler:
        model.backbone.compile(backend=compiler)
    starts, generator = UniformStarts(SHAPE), stream(device, 1, "buffer")
    chains = Chains(buffer_size=BUFFER, sampler=SGLD(n_steps=work.sampler_steps)).build(starts, CLASSES, generator)
    update = GuardedStep(Adam().build(model.parameters()), 1e8, device)
    objective = ContrastiveDivergence()

    def step(batch: Batch, generator: torch.Generator) -> None:
        negatives = chains(model, batch.labels, generator)
        update(lambda: objective(model, batch, negatives), 1e-4)
        if device.type == "cpu":  # as in training: on a GPU the host looks at log steps alone
            update.raise_if_diverged(0)

    return step


def plain(work: Work) -> Step:
    """The same training step, written plainly."""
    torch.manual_seed(1)
    network = work.backbone.build(SHAPE[0]).to(work.device)
    means = max_mahalanobis_means(CLASSES, work.backbone.dim, 10.0).to(work.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    buffer = torch.rand(BUFFER, *SHAPE, device=work.device) * 2 - 1

    def step(batch: Batch, generator: torch.Generator) -> None:
        where = torch.randint(BUFFER, (work.batch,), generator=generator, device=work.device)
        x, latents = buffer[where], means[batch.labels]
        network.eval()
        for _ in range(work.sampler_steps):
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


def product(work: Work, dtype: torch.dtype) -> Step:
    """A product of two square matrices, ``2 matrix^3`` operations."""
    a, b = (torch.randn(work.matrix, work.matrix, device=work.device).to(dtype) for _ in range(2))

    def step(batch: Batch, generator: torch.Generator) -> None:
        torch.mm(a, b)

    return step


def operations(work: Work) -> int:
    """Multiplications and additions that a training step needs.

    A chain's step costs a forward pass and the gradient of its images, as much again; the update three passes of real and sampled images.
    """
    network = work.backbone.build(SHAPE[0])
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(torch.zeros(1, *SHAPE))
    return counted.get_total_flops() * work.batch * (2 * work.sampler_steps + 2 * 3)


def contenders(work: Work, bf16: bool) -> dict[str, Callable[[], Step]]:
    """What takes turns: the plain loop, ours, and the products, by precision."""
    found: dict[str, Callable[[], Step]] = {PLAIN: partial(plain, work)}
    for precision, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        if precision == "fp32" or bf16:
            found |= {f"ours {precision}": partial(ours, work, precision), f"product {precision}": partial(product, work, dtype)}
    return found


def begin(contender: Callable[[], Step], work: Work, threads: int) -> None:
    """Make this process that of a contender."""
    global _step, _data
    torch.set_num_threads(threads)
    _step, _data = contender(), work.data()


def seconds() -> float:
    """Take one step in a contender's process."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    _step(*_data)
    return clock() - started


def figures(times: dict[str, list[float]], work: Work, count: int) -> list[Figure]:
    """The table of steps of ``count`` operations that took turns, from their seconds."""
    found = []
    for name, own in times.items():
        kind, precision = name.split(" ", 1)
        if kind == "product":
            found.append(Figure(f"peak, {precision}", "TFLOP/s", tuple(2e-12 * work.matrix**3 / took for took in own)))
            continue
        found.append(Figure(name, "images/s", tuple(work.batch / took for took in own)))
        if kind == "ours":
            found.append(ratios(f"{name} / plain", times[PLAIN], own))
            product_seconds = times.get(f"product {precision.split()[0]}", [])
            if len(product_seconds) == len(own):
                shares = (count / took * of / (2 * work.matrix**3) for took, of in zip(own, product_seconds, strict=True))
                found.append(Figure(f"share of peak, {precision}", "", tuple(shares)))
    return found


def measure(rounds: int = 5, threads: int | None = None, bf16: bool | None = None) -> list[Figure]:
    """Let the contenders take turns, each in a process of its own, after one round to warm up.

    Args:
        rounds: how often each is timed.
        threads: of each; torch's number by default.
        bf16: measure bfloat16 as well; by default where it is fast.
    """
    work, threads = Work(), threads or torch.get_num_threads()
    names = contenders(work, has_fast_bf16(torch.device("cpu")) if bf16 is None else bf16)
    times: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as open_pools:
        spawn = multiprocessing.get_context("spawn")
        pools = {
            name: open_pools.enter_context(ProcessPoolExecutor(1, spawn, begin, (contender, work, threads)))
            for name, contender in names.items()
        }
        for turn in range(rounds + 1):
            for name, pool in pools.items():
                took = pool.submit(seconds).result()
                if turn:
                    times[name].append(took)
    return figures(times, work, operations(work))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--bf16", action="store_true", default=None, help="measure bf16 even where it is emulated")
    arguments = parser.parse_args()
    print(table({"step": measure(arguments.rounds, arguments.threads, arguments.bf16)}))


if __name__ == "__main__":
    main()
