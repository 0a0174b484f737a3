"""One tiny run of ten kinds of digits, trained once and copied for each test that writes into it."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from gmmcli.evaluate.subject import Subject
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

RECIPE = """
name = "digits"
[data]
source = {{ kind = "npz", path = '{path}' }}
batch_size = 20
[model]
backbone = {{ kind = "wide-resnet", depth = 10, width = 1, init = "kaiming", stem_stride = 2 }}
[chains]
buffer_size = 100
sampler = {{ kind = "sgld", n_steps = 2, step_size = 0.1 }}
[optim]
learning_rate = 1e-3
[compute]
precision = "fp32"
[[stages]]
epochs = 2
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
[log]
preview_every = 0
"""
KEYS = ["schema", "command", "run", "step", "dataset", "split", "n", "protocol", "values"]
ALMOST = {"rel": 1e-6, "abs": 1e-6}
PARTS = {"train": slice(0, 200), "val": slice(200, 260), "test": slice(260, 380)}


@cache
def trained_in(folder: Path) -> Run:
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    arrays = {f"{name}_images": images[part] for name, part in PARTS.items()}
    np.savez(folder / "digits.npz", **arrays, **{f"{name}_labels": labels[part] for name, part in PARTS.items()})
    recipe = Recipe.loads(RECIPE.format(path=folder / "digits.npz"))
    run = Run.create(recipe, folder / "runs", [])
    train(Setup.prepare(recipe), run, quiet=True)
    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Read-only; better than chance, worse than perfect; one run for whichever folders of tests have this fixture."""
    folder = tmp_path_factory.getbasetemp() / "digits"
    folder.mkdir(exist_ok=True)
    return trained_in(folder)


Open = Callable[..., Subject]


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy to write into."""
    return Run(Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name)))


@pytest.fixture
def subject(run: Run) -> Subject:
    """Its model and test images."""
    return Subject.open(run.path)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Figures stay empty: drawing takes longer than measuring."""
    for figure in ("confusion", "reliability", "histograms", "scatter"):
        monkeypatch.setattr(f"gmmcli.evaluate.plots.{figure}", lambda *values: Figure())
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
    yield


def saved(run: Run, name: str) -> dict[str, np.ndarray]:
    """The arrays beside a result."""
    with np.load(run.path / "results" / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)
