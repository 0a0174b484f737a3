"""The setup: recipe, data and device, known to fit each other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import Begin, Small

from gmmcli.errors import DataError, RecipeError
from gmmcli.recipe import Recipe
from gmmcli.train.setup import Setup
from gmmcli.types import to_model

JOINT = """stages=[{epochs=1,objective={kind="center-regression"}},
                   {epochs=2,ramp_epochs=1,objective={kind="contrastive-divergence",beta=0.5,margin=2.0}}]"""
TWO = """stages=[{epochs=1,objective={kind="center-regression"}},
                 {epochs=1,freeze_norm=FROZEN,objective={kind="contrastive-divergence",margin=2.0}}]"""


def test_the_initial_state_is_a_function_of_the_seed_alone(begin: Begin) -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        state = begin(f"seed={seed}")[0].initial_state()
        assert state.chains is not None
        assert (state.step, state.rollbacks) == (0, 0)
        return {**state.model.state_dict(), "buffer": state.chains.buffer.images}

    torch.manual_seed(0)
    first = start(1)
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    again, other = start(1), start(2)
    assert torch.equal(torch.rand(1), drawn)  # the global generator is as it was
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert not torch.equal(first["buffer"], other["buffer"])
    assert not torch.equal(first["backbone.stem.weight"], other["backbone.stem.weight"])


def test_steps_count_over_all_stages(begin: Begin) -> None:
    setup, _ = begin(JOINT)
    assert setup.loader.steps_per_epoch == 80 // 16
    assert setup.n_steps == 15


@pytest.mark.parametrize(("epochs", "switches"), [((3,), []), ((1, 2), [5]), ((2, 1, 4), [10, 15])])
def test_stages_switch_where_the_epochs_before_them_end(begin: Begin, epochs: tuple[int, ...], switches: list[int]) -> None:
    stages = ",".join(f'{{epochs={n},objective={{kind="center-regression"}}}}' for n in epochs)
    assert begin(f"stages=[{stages}]")[0].switches == switches


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_a_recipe_error(small: Small) -> None:
    with pytest.raises(RecipeError, match=r"compute\.device cuda"):
        Setup.prepare(small("compute.device=cuda"))


def test_classes_that_do_not_fit_are_a_recipe_error_naming_recipe_and_data(small: Small, tmp_path: Path) -> None:
    images, labels = np.zeros((132, 8, 8), np.uint8), np.arange(132) % 66
    arrays = {f"{name}_{key}": value for name in ("train", "val", "test") for key, value in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "many.npz", **arrays)
    path = f"data.source.path='{tmp_path / 'many.npz'}'"
    with pytest.raises(RecipeError, match=r"66 class means need at least 65 features.*small on .*many\.npz"):
        Setup.prepare(small(path, "chains.buffer_size=66"))
    with pytest.raises(RecipeError, match="does not divide by 66 classes"):
        Setup.prepare(small(path, "model.backbone.width=2"))


def test_data_of_one_class_is_refused_before_anything_is_built(small: Small, tmp_path: Path) -> None:
    images, labels = np.zeros((20, 8, 8), np.uint8), np.zeros(20, np.int64)
    arrays = {f"{name}_{key}": value for name in ("train", "val", "test") for key, value in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "faces.npz", **arrays)
    with pytest.raises(DataError, match=r"faces\.npz has one class only"):
        Setup.prepare(small(f"data.source.path='{tmp_path / 'faces.npz'}'"))


@pytest.mark.parametrize(
    ("override", "kind", "says"),
    [
        ("data.batch_size=81", RecipeError, "larger than the 80 training images"),
        ("data.crop_padding=8", RecipeError, "does not fit images of 8 pixels"),
        ("data.source.path=nowhere.npz", DataError, "nowhere.npz"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_starts(small: Small, override: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        Setup.prepare(small(override))


def test_emulated_bf16_is_warned_of(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, n_warnings in ((False, 1), (True, 0)):
        monkeypatch.setattr("gmmcli.train.setup.has_fast_bf16", lambda device, fast=fast: fast)
        assert len(Setup.prepare(small("compute.precision=bf16")).warnings) == n_warnings
        assert Setup.prepare(small()).warnings == []


@pytest.mark.parametrize(
    ("frozen", "overrides", "says"),
    [
        ("false", ("model.backbone.norm=batch",), "set stages.1.freeze_norm=true"),
        ("true", ("model.backbone.norm=batch",), None),
        ("false", ("model.backbone.norm=group",), None),
        ("false", (), None),
    ],
)
def test_batch_norm_in_training_beside_chains_is_warned_of(small: Small, frozen: str, overrides: tuple[str, ...], says: str | None) -> None:
    warnings = Setup.prepare(small(TWO.replace("FROZEN", frozen), *overrides)).warnings
    assert len(warnings) == (says is not None)
    assert all(warning.startswith("stage 1 ") and says in warning for warning in warnings if says)


def test_batch_norm_without_chains_is_nothing_to_warn_of(small: Small) -> None:
    assert Setup.prepare(small("model.backbone.norm=batch", "stages.0.objective.kind=center-regression")).warnings == []


@pytest.mark.parametrize("kind", ["gaussian", "class-gaussian"])
def test_starts_are_fitted_to_the_training_images_by_the_seed(begin: Begin, kind: str) -> None:
    def starts(*overrides: str) -> dict[str, torch.Tensor]:
        setup, _ = begin(f"chains.start.kind={kind}", "chains.start.rank=4", *overrides)
        chains = setup.initial_state().chains
        assert chains is not None
        return chains.starts.tensors()

    setup, _ = begin()
    images, labels = setup.dataset.train.batch()
    means = [to_model(images[labels == k]).flatten(1).mean(0) for k in range(10)]
    expected = torch.stack(means) if kind == "class-gaussian" else to_model(images).flatten(1).mean(0, keepdim=True)
    first, again = starts(), starts()
    torch.testing.assert_close(first["mean"], expected)
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert torch.equal(first["mean"], starts("seed=2")["mean"])


def test_training_sees_the_training_split_alone(tiny_recipe: Recipe) -> None:
    setup = Setup.prepare(tiny_recipe)
    assert setup.loader.split.images is setup.dataset.train.images
    assert torch.equal(setup.validation.images, setup.dataset.validation.images)
    sizes = [len(setup.dataset.split(name).images) for name in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert sizes == [1257, 180, 360]


def test_the_runs_recipe_says_what_auto_became(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.core.compute.has_fast_bf16", lambda device: True)
    setup = Setup.prepare(small("compute.precision=auto"))
    assert setup.recipe.compute.precision == "bf16" and setup.initial_state().model.bf16
