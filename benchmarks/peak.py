"""What share of the machine's own matrix product a chain's update reaches: ``python benchmarks/peak.py``.

An update of a chain is one forward and one gradient of the images, in WRN-28-10 at 32 x 32. Its operations are counted by torch; the peak
is that of a product of two 2,048 x 2,048 matrices in the same precision, which takes turns with it. The shortest turn of each counts: other
jobs can only lengthen one.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from gmmcli.core.classifier import frozen
from gmmcli.core.compute import Compute, has_fast_bf16
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet

SIDE = 2048


def shortest(turns: int, *functions: Callable[[], object]) -> list[float]:
    """Call the functions in turn and return the seconds of the shortest call of each; with one thread, those of the process."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = [float("inf")] * len(functions)
    for _ in range(turns):
        for i, function in enumerate(functions):
            started = clock()
            function()
            best[i] = min(best[i], clock() - started)
    return best


def main() -> None:
    """Print operations a second of the update and of the product, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--depth", type=int, default=28)
    parser.add_argument("--width", type=int, default=10)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = Compute(device="cpu").select()
    model = Model(WideResNet(depth=arguments.depth, width=arguments.width, init="kaiming")).build(10, 3, seed=1)
    images = (torch.rand(arguments.batch, 3, 32, 32) * 2 - 1).requires_grad_()

    def update() -> None:
        images.grad = None
        torch.autograd.backward(model.features(images).sum())

    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if precision == "bf16" and not has_fast_bf16(device):
            continue
        Compute(precision=precision).place(model, device)  # type: ignore[arg-type]
        matrix = torch.rand(SIDE, SIDE).to(dtype)
        with frozen(model), FlopCounterMode(display=False) as counter:
            update()
        with frozen(model):
            seconds, peak = shortest(arguments.turns, update, lambda matrix=matrix: matrix @ matrix)
        reached, possible = counter.get_total_flops() / seconds / 1e9, 2 * SIDE**3 / peak / 1e9
        print(f"{precision}  update {reached:.0f} GFLOP/s  product {possible:.0f} GFLOP/s  share {reached / possible:.0%}")


if __name__ == "__main__":
    main()
