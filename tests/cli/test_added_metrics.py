"""Metrics of another package, the example of docs/extending.md, are seen wherever a built-in metric is."""

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
from animals import Gmmc, Trained
from scipy.stats import binomtest
from sklearn.metrics import top_k_accuracy_score

from extension import install_example
from gmmcli import registry
from gmmcli.metrics.features.spaces import pixel_space
from gmmcli.run import Run


@pytest.fixture(autouse=True)
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example, installed."""
    install_example("A metric", tmp_path, monkeypatch)
    yield
    registry.installed.cache_clear()


@pytest.fixture
def runs(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Two copies of the trained run, of two names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSETS", 5)
    copies = [Run(Path(shutil.copytree(trained.path, Path("runs") / f"{trained.path.name}-{i}"))) for i in (1, 2)]
    for run in copies:
        recipe = run.path / "recipe.toml"
        recipe.write_text(recipe.read_text().replace("animals", f"animals-{run.path.name[-1]}", 1))
    return copies


def test_a_metric_of_outputs_is_measured_shown_and_compared(gmmc: Gmmc, runs: list[Run]) -> None:
    values = json.loads(gmmc("eval", "accuracy", "--run", runs[0].path, "--json", "-q").stdout)["values"]
    arrays = runs[0].arrays("eval-accuracy")
    expected = top_k_accuracy_score(arrays["labels"], arrays["logits"], k=2)
    interval = binomtest(round(30 * expected), 30).proportion_ci(method="wilson")
    low, high = values["top2_accuracy_ci95"]
    assert 0 < values["top2_accuracy"] == pytest.approx(expected)
    assert [low, high] == pytest.approx([interval.low, interval.high])
    assert list(values)[:2] == ["accuracy", "ci95"]

    shown = " ".join(gmmc("eval", "accuracy", "--run", runs[1].path, "-q").stdout.split())
    assert f"top-2 accuracy {100 * expected:.2f}% [{100 * low:.2f}, {100 * high:.2f}]" in shown

    found = json.loads(gmmc("report", "--study", "runs", "--json").stdout)
    assert len(found["values"]) == 2
    for model in found["values"].values():
        row = model["figures"]["top2_accuracy"]
        assert (row["mean"], *row["interval"]) == pytest.approx((expected, low, high))
        assert row["protocol"]["n"] == "30"
    line = f"top-2 accuracy ↑ | {100 * expected:.1f}% ({100 * low:.1f}% to {100 * high:.1f}%) |"
    assert line in Path("runs/report.md").read_text(encoding="utf-8")
    page = Path("runs/report.html").read_text(encoding="utf-8")
    assert "top-2 accuracy" in page.partition('<table class="figures">')[2].partition("</table>")[0]
    assert "top-2 accuracy ↑" in gmmc("report", "--study", "runs").stdout


def test_a_metric_of_samples_is_measured_shown_and_compared(gmmc: Gmmc, runs: list[Run]) -> None:
    gmmc("eval", "accuracy", "--run", runs[0].path, "-q")
    words = ("eval", "generate", "--features", "pixels", "--run", runs[0].path, "-q")
    values = json.loads(gmmc(*words, "--json").stdout)["values"]
    dataset, space = runs[0].dataset(), pixel_space()
    real = space.embed(torch.cat([dataset.train.images, dataset.validation.images])).numpy()
    (arrays,) = [runs[0].arrays(stem) for stem in runs[0].results() if stem.startswith("eval-generate")]
    samples = space.embed(torch.from_numpy(arrays["samples"])).numpy()
    assert values["mean_distance"] == pytest.approx(np.linalg.norm(samples.mean(0) - real.mean(0)), rel=1e-5)
    assert "mean_distance_ci95" not in values

    assert f"distance of means {values['mean_distance']:.3f}" in " ".join(gmmc(*words).stdout.split())
    found = json.loads(gmmc("report", "--run", runs[0].path, "--json").stdout)
    (row,) = [model["figures"]["mean_distance"] for model in found["values"].values()]
    assert (row["mean"], row["interval"], row["protocol"]["space"]) == (values["mean_distance"], None, "pixels")
    (line,) = [one for one in (runs[0].path / "report.md").read_text(encoding="utf-8").splitlines() if "distance of means" in one]
    assert line.startswith("| distance of means ↓ |") and "(no interval)" in line


def test_a_result_of_a_metric_that_is_not_installed_any_more_still_opens(
    gmmc: Gmmc, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    gmmc("eval", "accuracy", "--run", runs[0].path, "-q")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints())
    registry.installed.cache_clear()
    found = json.loads(gmmc("report", "--run", runs[0].path, "--json").stdout)
    (model,) = found["values"].values()
    assert "accuracy" in model["figures"] and "top2_accuracy" not in model["figures"]
