"""How well noise is removed: ``python benchmarks/restore.py --run RUN``.

PSNR of test images: noisy, blurred, by Wiener's filter, restored.
"""

import argparse

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gmmcli.core.conditioned import StartsNear
from gmmcli.core.starts import GaussianStarts
from gmmcli.evaluate.restore import denoise
from gmmcli.evaluate.subject import Subject
from gmmcli.types import to_model

SIGMAS = (0.05, 0.1, 0.2)


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """In dB, of images in the model range, one value each."""
    return 10 * torch.log10(4 / (found - truth).square().mean((1, 2, 3)))


def main() -> None:
    """Print a table; the class is what the model takes the restored image for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run")
    parser.add_argument("--n", type=int, default=34)
    arguments = parser.parse_args()
    subject = Subject.open(arguments.run, n=arguments.n)
    truth, labels = to_model(subject.images.batch()[0]), subject.images.labels.tolist()
    starts, generator = subject.run.starts(), torch.Generator().manual_seed(0)
    everywhere = torch.ones(1, 1, *truth.shape[2:], dtype=torch.bool)
    print("| sigma | noisy | 3 x 3 mean | Wiener, true class | restored | restored, true class |\n|---|---|---|---|---|---|")
    for sigma in SIGMAS:
        noisy = truth + 2 * sigma * torch.randn(truth.shape, generator=generator)
        rows = {"noisy": noisy, "mean": avg_pool2d(noisy, 3, 1, 1)}
        each = [image[None] for image in noisy]
        if isinstance(starts, GaussianStarts):
            rows["wiener"] = torch.cat([StartsNear(starts, y, everywhere, 2 * sigma).mean(k) for y, k in zip(each, labels, strict=True)])
        rows["restored"] = torch.cat([denoise(subject.run, subject.model, y, subject.gamma2, 2 * sigma) for y in each])
        pairs = zip(each, labels, strict=True)
        rows["restored, true"] = torch.cat([denoise(subject.run, subject.model, y, subject.gamma2, 2 * sigma, k) for y, k in pairs])
        print(f"| {sigma} | " + " | ".join(f"{float(psnr(found, truth).mean()):.2f}" for found in rows.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
