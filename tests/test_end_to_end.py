"""From a recipe to a classifier that reopens, generates and is better than chance, through the command line and the Python API."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from gmmcli import load_model, open_run
from gmmcli.cli.app import app
from gmmcli.core.classifier import predict
from gmmcli.core.energy import class_log_probs
from gmmcli.data.digits import Digits
from gmmcli.metrics.accuracy import proportion
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.types import to_model

RECIPE = """
name = "seconds"
[data]
source = { kind = "digits" }
batch_size = 32
noise_std = 0.03
[model]
backbone = { kind = "wide-resnet", depth = 10, width = 1, stem_stride = 2, init = "kaiming" }
[chains]
buffer_size = 500
sampler = { kind = "fixed-length", n_steps = 2, step_size = 0.3 }
[optim]
learning_rate = 1e-2
schedule = "cosine"
[compute]
device = "cpu"
precision = "fp32"
[[stages]]
epochs = 2
objective = { kind = "contrastive-divergence", margin = 2.0 }
[log]
every = 10
preview_every = 39
validate_every = 39
checkpoint_every = 39
"""


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def gmmc(runs_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--runs-dir", str(runs_dir), "--quiet"], catch_exceptions=False)


@pytest.fixture(scope="module")
def answer(runs_dir: Path) -> dict[str, Any]:
    """What ``gmmc train --json`` says of a generative training of 78 steps."""
    recipe = runs_dir / "seconds.toml"
    recipe.write_text(RECIPE)
    result = gmmc(runs_dir, "train", str(recipe), "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture
def run(runs_dir: Path, answer: dict[str, Any]) -> Run:
    return open_run(answer["run"], runs_dir)


def test_two_epochs_learn(answer: dict[str, Any], run: Run) -> None:
    assert answer["values"]["accuracy"] > 0.6
    assert answer["n"] == 360
    images, labels = Digits().load().test.batch()
    untrained = proportion(predict(run.card().build().eval(), images).argmax(1) == labels)
    assert untrained["ci95"][1] < answer["values"]["ci95"][0]
    energies = [line["energy_data"] for line in run.metrics() if "energy_data" in line]
    assert energies[-1] < energies[0] / 2


def test_the_reopened_model_gives_the_accuracy_that_training_told(answer: dict[str, Any], run: Run) -> None:
    images, labels = Digits().load().test.batch()
    with torch.no_grad():
        right = run.model()(to_model(images)).argmax(1) == labels
    assert float(right.double().mean()) == answer["values"]["accuracy"]
    saved = run.result("eval accuracy")
    assert saved is not None
    assert saved["values"] == answer["values"]


def test_logits_are_distances_of_features_to_the_means(run: Run) -> None:
    model = run.model()
    images = to_model(Digits().load().test.images[:20])
    with torch.no_grad():
        features, logits = model.features(images).double(), model(images).double()
    expected = torch.stack([-(features - mean).square().sum(1) / 2 for mean in model.means.double()], dim=1)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-4)
    assert model.gamma2 is not None
    probabilities = class_log_probs(logits.float(), model.gamma2).exp()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(20))


def test_the_buffer_is_mapped_from_the_file_and_holds_images(run: Run) -> None:
    buffer = run.buffer()
    assert buffer.images.shape == (10, 50, 1, 8, 8)
    assert buffer.images.dtype == torch.float32
    assert float(buffer.images.abs().max()) <= 1
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(run.checkpoint().path / "buffer.safetensors") in maps.read_text()


def test_the_model_file_opens_by_itself(run: Run, tmp_path: Path) -> None:
    alone = tmp_path / "published.safetensors"
    alone.write_bytes((run.checkpoint().path / "model.safetensors").read_bytes())
    model, card = load_model(alone)
    images = to_model(Digits().load().test.images[:20])
    with torch.no_grad():
        assert torch.equal(model(images), run.model()(images))
    assert card.recipe == run.recipe == Recipe.loads(RECIPE)
    assert model.gamma2 == card.gamma2 == run.model().gamma2


@pytest.mark.parametrize("origin", ["noise", "buffer"])
def test_samples_have_the_asked_shape_and_repeat_by_their_seed(runs_dir: Path, run: Run, tmp_path: Path, origin: str) -> None:
    drawn = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        path = tmp_path / f"{name}.npz"
        result = gmmc(
            runs_dir,
            "sample",
            "--run",
            run.id,
            "--class",
            "3",
            "--n",
            "6",
            "--from",
            origin,
            "--seed",
            seed,
            "--format",
            "npz",
            "--out",
            str(path),
        )
        assert result.exit_code == 0, result.output
        with np.load(path) as archive:
            assert archive["labels"].tolist() == [3] * 6
            drawn.append(archive["images"])
    assert drawn[0].shape == (6, 8, 8, 1)
    assert drawn[0].dtype == np.uint8
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_samples_lie_lower_in_energy_than_the_noise_they_came_from(runs_dir: Path, run: Run) -> None:
    result = gmmc(runs_dir, "sample", "--run", run.id, "--n", "10", "--json")
    assert result.exit_code == 0, result.output
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.arange(10).repeat_interleave(10)
    with torch.no_grad():
        start = -run.model()(noise).gather(1, labels[:, None]).mean()
    values = json.loads(result.stdout)["values"]
    assert values["energy_mean"] < 0.8 * float(start)
    assert values["recognised_by_itself"] > 0.3  # by chance 0.1
    assert all(Path(path).is_file() for path in values["paths"])


def test_the_run_directory_holds_what_is_promised(run: Run) -> None:
    assert {"recipe.toml", "provenance.json", "metrics.jsonl", "checkpoints", "samples", "results"} <= {p.name for p in run.path.iterdir()}
    assert [c.step for c in run.checkpoints] == [39, 78]
    assert run.provenance["status"] == "finished"
    assert (run.path / "samples" / "preview-00000078.png").is_file()
    assert not [path for path in run.path.rglob("*") if path.suffix in {".pt", ".pth", ".pkl"}]
