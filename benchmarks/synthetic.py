"""A run to evaluate and attack where no data is at hand: WRN-16-2 on 32 x 32 colour images of ten blurred patterns, trained for seconds."""

from pathlib import Path

import numpy as np

from gmmcli.evaluate.subject import Subject
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

RECIPE = """
name = "synthetic"
[data]
source = {{ kind = "npz", path = '{path}' }}
batch_size = 32
[model]
backbone = {{ kind = "wide-resnet", depth = {depth}, width = {width}, norm = "batch", init = "kaiming" }}
[chains]
buffer_size = 100
[optim]
learning_rate = 1e-3
[[stages]]
epochs = {epochs}
objective = {{ kind = "center-regression" }}
[log]
preview_every = 0
"""


def recipe(folder: Path, n: int = 320, depth: int = 16, width: int = 2, epochs: int = 1) -> Recipe:
    """Write ``n`` images each to train on, validate and test with, and return the recipe of a training on them."""
    rng = np.random.default_rng(1)
    patterns = rng.normal(0, 60, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    arrays = {}
    for split in ("train", "val", "test"):
        labels = np.arange(n) % 10
        images = patterns[labels] + rng.normal(128, 40, (n, 32, 32, 3))
        arrays |= {f"{split}_images": images.clip(0, 255).astype(np.uint8), f"{split}_labels": labels}
    np.savez(folder / "synthetic.npz", **arrays)
    return Recipe.loads(RECIPE.format(path=folder / "synthetic.npz", depth=depth, width=width, epochs=epochs))


def subject(folder: Path, n: int, device: str = "cpu") -> Subject:
    """Train in a folder, and open the run with its ``n`` test images."""
    of = recipe(folder, n)
    run = Run.create(of, folder / "runs", [])
    train(Setup.prepare(of), run, quiet=True)
    return Subject.open(run.path, device=device)
