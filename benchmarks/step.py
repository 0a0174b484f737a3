"""Time a training step against a plain loop: ``python benchmarks/step.py``.

Ours (channels-last; one forward for real and sampled images; no parameter gradients in chains; fused Adam; float32 and, where the
machine has it, bfloat16) against a plain loop with the arithmetic of the authors' code: float32 in NCHW, the energy averaged over the batch
before it is differentiated, real and sampled images in separate forwards. WRN-16-2, 32 x 32, batch 64, 10 sampler steps. The two
take turns in one process, so that a machine whose speed drifts is the same for both; the ratio is the median over the rounds.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from gmmcli.core.chains import Chains
from gmmcli.core.compute import Compute, has_fast_bf16
from gmmcli.core.means import max_mahalanobis_means
from gmmcli.core.model import Model
from gmmcli.core.objectives import ContrastiveDivergence
from gmmcli.core.optim import Adam
from gmmcli.core.samplers import SGLD
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.rng import stream
from gmmcli.train.guard import GuardedStep
from gmmcli.types import Batch

BATCH, CLASSES, SHAPE, SAMPLER_STEPS, BUFFER = 64, 10, (3, 32, 32), 10, 1000
BACKBONE = WideResNet(depth=16, width=2)


def ours(precision: str) -> Callable[[Batch, torch.Generator], None]:
    """A training step of this package."""
    device = torch.device("cpu")
    compute = Compute(device="cpu", precision="bf16" if precision == "bf16" else "fp32")
    model = compute.place(Model(BACKBONE).build(CLASSES, SHAPE[0], seed=1), device)
    chains = Chains(buffer_size=BUFFER, sampler=SGLD(n_steps=SAMPLER_STEPS)).build(CLASSES, SHAPE, stream(device, 1, "buffer"))
    update = GuardedStep(Adam().build(model.parameters()), 1e8, device)
    objective = ContrastiveDivergence()

    def step(batch: Batch, generator: torch.Generator) -> None:
        negatives = chains(model, batch.labels, generator)
        update(lambda: objective(model, batch, negatives), 1e-4)
        update.raise_if_diverged(0)

    return step


def plain() -> Callable[[Batch, torch.Generator], None]:
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


def main() -> None:
    """Alternate, and print images per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bf16", action="store_true", help="measure bf16 even where it is emulated")
    arguments = parser.parse_args()
    steps = {"plain fp32 NCHW": plain(), "ours fp32": ours("fp32")}
    if arguments.bf16 or has_fast_bf16(torch.device("cpu")):
        steps["ours bf16"] = ours("bf16")
    else:
        print("this cpu has no bfloat16 instructions: bf16 is left out (--bf16 measures it all the same)")
    generator = stream("cpu", 1, "benchmark")
    batch = Batch(torch.rand(BATCH, *SHAPE, generator=generator) * 2 - 1, torch.randint(CLASSES, (BATCH,), generator=generator))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step(batch, generator)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds["plain fp32 NCHW"], times, strict=True)]
        print(f"{name:16}  {BATCH / median(times):7.1f} images/s  ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
