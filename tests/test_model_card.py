import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gmmcli.core.heads import GaussianHead
from gmmcli.errors import CheckpointError
from gmmcli.model_card import ModelCard, load_model
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


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "its header lacks a readable 'class_names'"),
        ({"class_names": "[]", "image_shape": "[1, 8, 8]", "gamma2": "null", "recipe": "seed = 1"}, "its header lacks a readable `name`"),
        ({"class_names": "[", "image_shape": "[1, 8, 8]", "gamma2": "null", "recipe": ""}, "its header lacks a readable"),
    ],
)
def test_other_peoples_safetensors_are_not_models(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file, metadata)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is not a gmmc model") as error:
        load_model(file)
    assert message in error.value.message
    assert error.value.exit_code == 6


def test_files_that_are_no_safetensors_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("hello")
    for name in ("x.safetensors", "gone.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name} cannot be read as a model"):
            load_model(tmp_path / name)
