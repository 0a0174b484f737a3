"""What the figures cost beside the passes they need: ``python benchmarks/evaluate.py [RUN] [--n 10000] [--rounds 3]``.

Accuracy, calibration and out-of-distribution figures of n test images (one pass with gradients over the test images and over each
outlier set, one without over the validation images), against the same passes with nothing computed of them. Alternating in one process.
"""

import argparse
import statistics
import time

import torch

from gmmcli.core.classifier import frozen
from gmmcli.core.energy import log_density
from gmmcli.data.outliers import outliers
from gmmcli.evaluate import measure
from gmmcli.evaluate.subject import Subject
from gmmcli.types import RawImages, to_model

SETS = ["interp", "uniform"]


def bare(subject: Subject, images: RawImages, gradients: bool) -> None:
    """A plain loop over the images: forward, and one backward where gradients are needed."""
    with frozen(subject.model), torch.set_grad_enabled(gradients):
        for part in torch.split(images, 250):
            x = to_model(part).requires_grad_(gradients)
            logits = subject.model(x)
            if gradients:
                torch.autograd.grad(log_density(logits, subject.gamma2).sum(), x)


def main() -> None:
    """Print seconds and their ratio, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ratios = []
    for _ in range(arguments.rounds):
        subject = Subject.open(arguments.run, n=arguments.n)
        passes = [subject.images.images, *(outliers(name, subject.dataset, 1).images[: arguments.n] for name in SETS)]
        validation = subject.validation.images
        started = time.perf_counter()
        for images in passes:
            bare(subject, images, gradients=True)
        bare(subject, validation, gradients=False)
        between = time.perf_counter()
        measure.tested(subject, quiet=True, mass=True)
        measure.accuracy(subject)
        measure.calibrate(subject)
        measure.ood(subject, SETS)
        ended = time.perf_counter()
        ratios.append((ended - between) / (between - started))
        print(
            f"bare passes {between - started:.1f} s, all figures and pictures {ended - between:.1f} s, ratio {ratios[-1]:.2f}", flush=True
        )
    print(f"median ratio {statistics.median(ratios):.2f} (n = {len(subject.images.labels):,}, {subject.run.recipe.name})")


if __name__ == "__main__":
    main()
