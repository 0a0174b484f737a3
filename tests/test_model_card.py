import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from torch import nn

from gmmcli.core.heads import GaussianHead
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.errors import CheckpointError
from gmmcli.model_card import ModelCard, load_model, without_paths
from gmmcli.recipe import Recipe
from untrained import NAMES, create, save


def test_a_lone_model_file_gives_the_same_model(tmp_path: Path, tiny_recipe: Recipe, generator: torch.Generator) -> None:
    run = create(tiny_recipe, tmp_path / "runs")
    save(run, 10)
    alone = Path(shutil.copy(run.checkpoint().path / "model.safetensors", tmp_path / "published.safetensors"))
    images = torch.rand(4, 1, 8, 8, generator=generator) * 2 - 1
    with torch.no_grad():
        logits = run.model()(images)
        shutil.rmtree(run.path)
        model, card = load_model(alone)
        assert torch.equal(model(images), logits)
    assert card == ModelCard(tiny_recipe, NAMES, (1, 8, 8), gamma2=1.5)
    assert (model.training, model.gamma2) == (False, 1.5)
    assert isinstance(model.head, GaussianHead)


GOOD = {"class_names": '["a"]', "image_shape": "[1, 8, 8]", "gamma2": "null"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "its header lacks 'class_names'"),
        (GOOD, "its header lacks 'recipe'"),
        (GOOD | {"recipe": "seed = 1"}, "`name`"),
        (GOOD | {"recipe": "[" * 500}, "is not valid TOML"),
        (GOOD | {"class_names": "["}, "class_names of its header is '[' (Invalid JSON"),
        (GOOD | {"class_names": '"abc"'}, "class_names of its header is '\"abc\"'"),
        (GOOD | {"class_names": "[1]"}, "class_names of its header is '[1]'"),
        (GOOD | {"image_shape": "[1, 8]"}, "image_shape of its header is '[1, 8]'"),
        (GOOD | {"image_shape": "[2, 8, 8]"}, "image_shape of its header is"),
        (GOOD | {"image_shape": "[1, 8.5, 8]"}, "image_shape of its header is"),
        (GOOD | {"image_shape": "[1, 8, 99999999]"}, "image_shape of its header is"),
        (GOOD | {"gamma2": '"x"'}, "gamma2 of its header is '\"x\"'"),
        (GOOD | {"gamma2": "NaN"}, "gamma2 of its header is 'NaN'"),
        (GOOD | {"gamma2": "-1"}, "gamma2 of its header is '-1'"),
        (GOOD | {"gamma2": "1e999"}, "gamma2 of its header is '1e999'"),
    ],
)
def test_other_peoples_safetensors_are_not_models(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file, metadata)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is not a gmmc model") as error:
        load_model(file)
    assert message in error.value.message
    assert error.value.exit_code == 6


def test_a_card_of_a_larger_model_than_the_file_is_refused_before_it_is_built(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(tiny_recipe, tmp_path / "runs")
    save(run, 10)
    path = run.checkpoint().path / "model.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["recipe"] = Recipe.loads(metadata["recipe"], overrides=["model.backbone.width=800"]).dumps()
    safetensors.torch.save_file(safetensors.torch.load_file(path), tmp_path / "x.safetensors", metadata)
    monkeypatch.setattr(ModelCard, "build", lambda card: pytest.fail("12 GB"))
    with pytest.raises(CheckpointError, match=r"has shape \(16, 16, 3, 3\), its card says \(12800, 16, 3, 3\)"):
        load_model(tmp_path / "x.safetensors")


def test_what_is_published_names_no_path(tmp_path: Path, tiny_recipe: Recipe) -> None:
    recipe = Recipe.loads(
        tiny_recipe.dumps(),
        overrides=["data.source={kind='folder',path='elsewhere/lovelace/secret/photos'}", "init.from='elsewhere/lovelace/first'"],
    )
    card = ModelCard(recipe, NAMES, (1, 8, 8), gamma2=1.5)
    header = card.dump()
    assert "lovelace" not in str(header) and "secret" not in str(header)
    again = ModelCard.parse(header, "x")
    assert (again.recipe.data.source.path, again.recipe.init.from_) == ("photos", "first")  # type: ignore[attr-defined]
    assert without_paths(again.recipe) == again.recipe


def test_files_that_are_no_safetensors_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("hello")
    for name in ("x.safetensors", "gone.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name} cannot be read as a model"):
            load_model(tmp_path / name)


@dataclass(frozen=True, kw_only=True)
class Scans:
    """A package's source, with paths under names of its own."""

    n_classes: ClassVar[None] = None
    kind: str = "scans"
    archive: str = "/srv/somebody/scans.tar"
    labels: Path = Path("~/labels.csv")
    modality: str = "x-ray/2d"


def test_the_paths_of_any_source_are_cut_and_nothing_else(tiny_recipe: Recipe) -> None:
    scans: Any = Scans()
    kept: Any = without_paths(replace(tiny_recipe, data=replace(tiny_recipe.data, source=scans))).data.source
    assert (kept.archive, str(kept.labels), kept.modality) == ("scans.tar", "labels.csv", "x-ray/2d")


def test_a_model_whose_backbone_cannot_be_built_on_the_meta_device_opens(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(tiny_recipe, tmp_path / "runs")
    save(run, 10)
    build = WideResNet.build

    def eager(table: WideResNet, channels: int) -> nn.Module:
        torch.ones(1).item()  # as a backbone that looks at its own weights
        return build(table, channels)

    monkeypatch.setattr(WideResNet, "build", eager)
    model, _ = load_model(run.checkpoint().path / "model.safetensors")
    assert torch.isfinite(model(torch.zeros(2, 1, 8, 8))).all()
