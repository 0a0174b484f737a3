"""Parts of another package, from its installation to its removal: the examples of docs/extending.md, and one of each other kind."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from extension import PAGE, Example, examples, install
from gmmcli import load_model, open_run, registry
from gmmcli.cli.app import app
from gmmcli.errors import RunError
from gmmcli.recipe import Recipe
from gmmcli.report.collect import family
from gmmcli.run import Run
from gmmcli.train.setup import Setup

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the checkout")
FAMILY = re.compile(r"gmmcli\.(\w+)")
QUICK = ["--set", "data.batch_size=600", "--set", "stages.0.epochs=1", "--set", "compute.device=cpu", "--set", "chains.sampler.n_steps=2"]
"""Two steps."""


def recipe() -> str:
    """The page's recipe."""
    (text,) = re.findall(r"^```toml\n(name = .*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(text)


REST = """
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from gmmcli.core.energy import joint_energy
from gmmcli.core.optim import Updates
from gmmcli.types import Loss, to_model


@dataclass(frozen=True)
class Means:
    shape: tuple[int, ...]
    mean: torch.Tensor

    def __call__(self, labels, generator):
        return self.mean[labels] + 0.1 * torch.randn(len(labels), *self.shape, generator=generator, device=generator.device)

    def tensors(self):
        return {"average": self.mean}


@dataclass(frozen=True, kw_only=True)
class ClassMean:
    kind: Literal["class-mean"] = "class-mean"

    def fit(self, images, labels, n_classes, seed):
        return Means(tuple(images.shape[1:]), torch.stack([to_model(images[labels == k]).mean(0) for k in range(n_classes)]))

    def restored(self, tensors, shape):
        return Means(shape, tensors["average"])


@dataclass(frozen=True, kw_only=True)
class Halved:
    needs_means: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = True
    kind: Literal["halved"] = "halved"

    def __call__(self, model, labels, generator):
        return lambda images: joint_energy(model(images), labels) / 2


@dataclass(frozen=True, kw_only=True)
class Difference:
    needs_means: ClassVar[str] = ""
    marginal: ClassVar[bool] = False
    needs_negatives: ClassVar[bool] = True
    clean_positive: ClassVar[bool] = False
    kind: Literal["difference"] = "difference"

    def __call__(self, model, batch, negatives, ramp=1.0):
        real, sampled = (joint_energy(model(some.images), some.labels).mean() for some in (batch, negatives))
        return Loss(real - ramp * sampled, {"energy_data": real.detach(), "energy_model": sampled.detach()})


@dataclass(frozen=True, kw_only=True)
class Adagrad(Updates):
    kind: Literal["adagrad"] = "adagrad"

    def build(self, parameters):
        return torch.optim.Adagrad(parameters, self.learning_rate, fused=True)
"""
REST_PARTS = {
    "starts": {"class-mean": "my_rest:ClassMean"},
    "targets": {"halved": "my_rest:Halved"},
    "objectives": {"difference": "my_rest:Difference"},
    "optimisers": {"adagrad": "my_rest:Adagrad"},
}
OF_THE_REST = [
    *("--set", "chains.start.kind=class-mean", "--set", "chains.target.kind=halved", "--set", "optim.kind=adagrad"),
    *("--set", "stages.0.objective={kind='difference'}", "--set", "log.validate_samples=2", "--set", "log.validate_every=2"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's package, with the rest beside it, installed."""
    folder, parts = tmp_path_factory.mktemp("package"), dict(REST_PARTS)
    for example in examples():
        for name, entries in example.parts.items():
            parts[name] = parts.get(name, {}) | entries
    with pytest.MonkeyPatch.context() as patch:
        install(folder, patch, {example.module: example.code for example in examples()} | {"my_rest": REST}, parts)
        (folder / "mine.toml").write_text(recipe())
        yield folder
    registry.installed.cache_clear()


@pytest.fixture
def removed(package: Path) -> Iterator[None]:
    """The package is no longer there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
        registry.installed.cache_clear()
        yield
    registry.installed.cache_clear()


def gmmc(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def trained(package: Path, *overrides: str) -> Run:
    result = gmmc("train", package / "mine.toml", *QUICK, *overrides, "--runs-dir", package / "runs", "--quiet", "--json")
    assert result.exit_code == 0, result.stderr
    return open_run(package / "runs" / json.loads(result.stdout)["run"])


@pytest.fixture(scope="module")
def run(package: Path) -> Run:
    """Two steps with the page's parts."""
    return trained(package)


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.heading)
def test_an_example_is_short(example: Example) -> None:
    assert len([line for line in (example.code + example.entry).splitlines() if line]) < 30


def test_the_page_shows_each_kind_that_it_promises() -> None:
    shown = {name for example in examples() for name in example.parts}
    assert shown >= {"backbones", "heads", "samplers", "sources"}
    groups = {name for name in FAMILY.findall(PAGE.read_text(encoding="utf-8")) if name.endswith("s")}
    assert shown | {*REST_PARTS} <= groups


def test_a_run_of_added_parts_is_trained_sampled_and_evaluated(run: Run) -> None:
    assert run.checkpoint().step == 2
    recipe = run.recipe
    kinds = (recipe.data.source.kind, recipe.model.backbone.kind, recipe.model.head.kind, recipe.chains.sampler.kind)
    assert kinds == ("binary-digits", "conv", "one-hot", "sign")
    assert torch.equal(run.model().means, 10 * torch.eye(10, 32))
    asked = ["--run", run.path, "--quiet"]
    sampled = json.loads(gmmc("sample", "--class", "3", "--n", "2", "--step-size", "0.5", "--steps", "3", *asked, "--json").stdout)
    assert sampled["protocol"]["step_size"] == 0.5 and Path(sampled["values"]["paths"][0]).is_file()
    result = gmmc("eval", "accuracy", "--data", "binary-digits", *asked, "--json")
    assert json.loads(result.stdout)["n"] == 360


def test_a_recipe_of_added_parts_survives_toml(run: Run) -> None:
    assert Recipe.loads(run.recipe.dumps()) == run.recipe
    assert (run.path / "recipe.toml").read_text() == run.recipe.dumps()


def test_a_dry_run_and_the_list_of_datasets_know_added_parts(package: Path) -> None:
    planned = gmmc("train", package / "mine.toml", *QUICK, "--dry-run")
    assert planned.exit_code == 0 and 'kind = "conv"' in planned.stdout
    assert "binary-digits  scikit-learn's digits in black and white." in gmmc("data", "ls").stdout
    assert gmmc("data", "check", "binary-digits").stdout.startswith("binary-digits: 10 classes, 8 x 8 x 1")


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("model.backbone.kind=covn", "unknown kind 'covn' for `model.backbone`", "did you mean 'conv'?"),
        ("model.head.kind=zzz", "unknown kind 'zzz' for `model.head`", "one of: max-mahalanobis, lda, linear, one-hot"),
        ("model.backbone.dmi=3", "unknown key `model.backbone.dmi`", "did you mean `dim`?"),
        ("model.backbone.dim=0", "`model.backbone.dim` must be greater than or equal to 1, got 0", ""),
        ("model.backbone.dim=9", "", "10 one-hot means do not fit into 9 features (mine on binary-digits)"),
        ("model.backbone.dim=8", "", "10 class means need at least 9 features, and a backbone of kind conv has 8; make it wider"),
    ],
)
def test_what_is_wrong_with_an_added_part_is_one_sentence(override: str, message: str, hint: str, package: Path) -> None:
    result = gmmc("train", package / "mine.toml", *QUICK, "--set", override, "--runs-dir", package / "refused")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and hint in result.stderr


def test_a_misspelt_dataset_on_the_command_line_gets_a_suggestion(package: Path) -> None:
    result = gmmc("data", "check", "binray-digits:x")
    assert result.exit_code == 2 and "did you mean binary-digits?" in result.stderr


def test_targets_starts_objectives_and_optimisers_are_added_alike(package: Path) -> None:
    run = trained(package, *OF_THE_REST)
    setup = Setup.prepare(run.recipe)
    starts, labels = run.starts(), torch.tensor([3, 0])
    assert torch.equal(starts(labels, torch.Generator().manual_seed(1)), setup.starts(labels, torch.Generator().manual_seed(1)))
    back = setup.restored(run.checkpoint())
    assert back.chains is not None and torch.equal(back.chains.starts.tensors()["average"], starts.tensors()["average"])
    assert type(back.optimizer) is torch.optim.Adagrad
    sampled = json.loads(gmmc("sample", "--class", "3", "--n", "2", "--run", run.path, "--quiet", "--json").stdout)
    assert sampled["protocol"]["start"] == "class-mean"
    assert family(run.recipe) == "other"


def test_help_imports_no_added_part(package: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(package)!r})\nimport gmmcli.cli.app as a\ntry: a.app(['--help'])\nexcept SystemExit: pass\n"
        "from gmmcli.registry import Registry\nassert 'conv' in Registry('backbones', {})\n"
        "sys.exit(any(name.startswith('my_') for name in sys.modules) or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.usefixtures("removed")
def test_without_the_package_a_run_says_what_is_missing(run: Run) -> None:
    for command in (["sample", "--class", "3"], ["train", "--resume"]):
        result = gmmc(*command, "--run", run.path)
        assert (result.exit_code, result.stdout) == (1, "")
        error, hint = [line for line in result.stderr.splitlines() if "note" not in line]
        assert error.startswith("gmmc: error: ") and "unknown kind 'binary-digits' for `data.source`" in error
        assert hint == "gmmc: install the package that adds it, by an entry point in gmmcli.sources"
    with pytest.raises(RunError, match="cannot be opened: unknown kind 'binary-digits'"):
        load_model(run.checkpoint().path / "model.safetensors")


@pytest.mark.usefixtures("removed")
def test_without_the_package_its_recipe_is_refused(package: Path) -> None:
    result = gmmc("train", package / "mine.toml", "--runs-dir", package / "refused")
    assert result.exit_code == 2 and "unknown kind 'binary-digits' for `data.source`" in result.stderr
    assert "did you mean 'digits'?" in result.stderr
    assert not (package / "refused").exists()
