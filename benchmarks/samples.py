"""Judge the samples of runs by the real data: ``python benchmarks/samples.py [RUN ...]``.

For each run (the newest by default): fresh class-conditional samples, the share of them that an SVC trained on the real training
images recognises as their class, and the recall of the real test images in the k-NN manifold of the samples (Kynkaanniemi et al.
2019, k = 5, pixel space): how much of the variety of the data they cover.
"""

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from gmmcli.core.chains import fresh_samples
from gmmcli.data.dataset import Dataset, Split
from gmmcli.evaluate.accuracy import wilson_interval
from gmmcli.rng import stream
from gmmcli.run import Run, open_run
from gmmcli.types import Images, to_bytes, to_model

CHUNK = 256


def draw(run: Run, per_class: int, n_steps: int | None, noise: float | None, seed: int) -> tuple[Images, torch.Tensor]:
    """Fresh chains, ``per_class`` of each class, as `gmmc sample --class all` draws them."""
    card, model, step_size = run.card(), run.model(), run.step_size()
    labels = torch.arange(len(card.class_names)).repeat_interleave(per_class)
    chains = card.recipe.chains if noise is None else replace(card.recipe.chains, fresh_noise_std=noise)
    parts = [
        fresh_samples(model, chains, part, card.image_shape, stream("cpu", seed, "sample", i), n_steps, step_size)
        for i, part in enumerate(torch.split(labels, CHUNK))
    ]
    return torch.cat(parts), labels


def flat(images: torch.Tensor) -> np.ndarray:
    """Model-range pixels of byte images, one row an image."""
    return to_model(images).flatten(1).numpy()


def recall(real: np.ndarray, fake: np.ndarray, k: int = 5) -> float:
    """Share of real images within the distance of some sample to its k-th nearest other sample."""
    radii = NearestNeighbors(n_neighbors=k + 1).fit(fake).kneighbors(fake)[0][:, -1]
    return float((pairwise_distances(real, fake) <= radii).any(1).mean())


def judge(train: Split) -> SVC:
    """The independent classifier."""
    return SVC(C=10).fit(flat(train.images), train.labels.numpy())


def measure(run: Run, dataset: Dataset, svc: SVC, per_class: int, n_steps: int | None, noise: float | None, seed: int) -> dict[str, float]:
    """All figures of one run."""
    started = time.perf_counter()
    images, labels = draw(run, per_class, n_steps, noise, seed)
    seconds = time.perf_counter() - started
    pixels = flat(to_bytes(images))
    recognised = int((svc.predict(pixels) == labels.numpy()).sum())
    low, high = wilson_interval(recognised, len(labels))
    result = run.result("eval accuracy")
    return {
        "accuracy": result["values"]["accuracy"] if result else float("nan"),
        "n": len(labels),
        "recognised": recognised / len(labels),
        "recognised_low": low,
        "recognised_high": high,
        "recall": recall(flat(dataset.test.images)[:1000], pixels),
        "training_s": run.provenance.get("wall_time_s", float("nan")),
        "sampling_s": round(seconds, 1),
    }


def main() -> None:
    """Print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="paths, ids or prefixes; the newest by default")
    parser.add_argument("--per-class", type=int, default=64)
    parser.add_argument("--steps", type=int, help="updates of a chain; a training chain's mean lifetime by default")
    parser.add_argument("--noise", type=float, help="noise std it sets out with; the recipe's by default")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    runs = [open_run(name) for name in arguments.runs or [None]]
    dataset = runs[0].recipe.data.source.load()
    svc = judge(dataset.train)
    real = (svc.predict(flat(dataset.test.images)) == dataset.test.labels.numpy()).mean()
    print(f"the judge, SVC(C=10) on {len(dataset.train.images):,} real images, recognises {real:.1%} of the real test images")
    for run in runs:
        figures = measure(run, dataset, svc, arguments.per_class, arguments.steps, arguments.noise, arguments.seed)
        print(json.dumps({"run": run.id} | figures), flush=True)


if __name__ == "__main__":
    main()
