"""Trainings that start from the weights of another run or file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import Begin, Small, trained

from gmmcli.errors import CheckpointError, RecipeError, RunError
from gmmcli.run import Run
from gmmcli.train.setup import Setup


@pytest.fixture
def other(begin: Begin) -> Run:
    """A run of the same model with other weights."""
    setup, run = begin("seed=7", 'name="other"')
    setup.initial_state().save(run, setup.dataset)
    return run


def weights_of(setup: Setup) -> dict[str, torch.Tensor]:
    return setup.initial_state().model.state_dict()


@pytest.mark.parametrize("form", ["path", "id", "name", "file"])
def test_the_initial_weights_are_those_of_the_run_or_file(
    begin: Begin, other: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("GMMC_RUNS_DIR", str(tmp_path))
    file = shutil.copy(other.checkpoint().path / "model.safetensors", tmp_path / "published.safetensors")
    setup, _ = begin(f'init.from="{ {"path": other.path, "id": other.id, "name": "other", "file": file}[form] }"')
    saved = other.checkpoint().tensors("model")
    found, random = weights_of(setup), weights_of(begin()[0])
    assert all(torch.equal(tensor, saved[key]) for key, tensor in found.items())
    assert not torch.equal(found["backbone.stem.weight"], random["backbone.stem.weight"])
    assert setup.initial_state().model.gamma2 is None


def test_training_moves_on_from_there_and_leaves_the_other_run_as_it_was(begin: Begin, other: Run) -> None:
    before = {path: path.read_bytes() for path in other.path.rglob("*") if path.is_file()}
    setup, run = begin(f'init.from="{other.path}"', "optim.learning_rate=1e-9")
    trained(setup, run)
    start, end = other.checkpoint().tensors("model"), run.checkpoint().tensors("model")
    assert all(torch.allclose(start[key], end[key], rtol=0, atol=1e-6) for key in start)
    assert any(not torch.equal(start[key], end[key]) for key in start)
    assert {path: path.read_bytes() for path in other.path.rglob("*") if path.is_file()} == before


def test_an_average_of_weights_starts_there_too(begin: Begin, other: Run) -> None:
    state = begin(f'init.from="{other.path}"', "optim.ema_decay=0.9")[0].initial_state()
    assert state.average is not None
    assert torch.equal(state.average.backbone.stem.weight, other.checkpoint().tensors("model")["backbone.stem.weight"])


def test_a_resume_does_not_need_the_other_run(begin: Begin, other: Run) -> None:
    setup, run = begin(f'init.from="{other.path}"', "log.checkpoint_every=2")
    trained(setup, run)
    whole = run.checkpoint().tensors("model")
    shutil.rmtree(run.checkpoint().path)
    shutil.rmtree(other.path)
    trained(Setup.prepare(run.recipe), run, resume=True)
    assert all(torch.equal(tensor, whole[key]) for key, tensor in run.checkpoint().tensors("model").items())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.backbone.width=2"], "model.backbone.width is 1 there and 2 here"),
        (["model.backbone.depth=16"], "model.backbone.depth is 10 there and 16 here"),
        (['model.backbone.norm="batch"'], "model.backbone.norm is 'none' there and 'batch' here"),
        (['model.head.kind="lda"'], "model.head.kind is 'max-mahalanobis' there and 'lda' here"),
        (["model.head.radius=5.0"], "model.head.radius is 10.0 there and 5.0 here"),
        (["stages.0.epochs=3", 'model.backbone.init="torch"'], None),
    ],
)
def test_a_model_that_differs_is_one_sentence(small: Small, other: Run, overrides: list[str], says: str | None) -> None:
    setup = Setup.prepare(small(*overrides, f'init.from="{other.path}"'))
    if says is None:
        setup.initial_state()
        return
    with pytest.raises(RecipeError) as raised:
        setup.initial_state()
    assert raised.value.message == f"init.from = {str(other.path)!r} does not fit recipe small: {says}"


def test_other_classes_and_images_are_one_sentence(small: Small, other: Run, tmp_path: Path) -> None:
    for shape, n_classes, says in [
        ((8, 8), 5, "the number of classes is 10 there and 5 here"),
        ((9, 9), 10, "is (1, 8, 8) there and (1, 9, 9)"),
    ]:
        labels, path = np.arange(40) % n_classes, tmp_path / f"{n_classes}.npz"
        arrays = {f"{split}_images": np.zeros((40, *shape), np.uint8) for split in ("train", "val", "test")}
        np.savez(path, **arrays, **{f"{split}_labels": labels for split in ("train", "val", "test")})
        with pytest.raises(RecipeError, match="does not fit recipe small") as raised:
            Setup.prepare(small(f'data.source.path="{path}"', f'init.from="{other.path}"')).initial_state()
        assert says in raised.value.message


def test_what_is_not_there_or_is_damaged_is_one_sentence(small: Small, other: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run nobody"):
        Setup.prepare(small("init.from=nobody")).initial_state()
    with pytest.raises(CheckpointError, match="cannot be read as a model"):
        Setup.prepare(small(f'init.from="{tmp_path}/gone.safetensors"')).initial_state()
    path = other.checkpoint().path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        Setup.prepare(small(f'init.from="{other.path}"')).initial_state()
