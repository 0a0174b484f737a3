from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.classifier import predict
from gmmcli.data.dataset import subset
from gmmcli.data.npz import Npz
from gmmcli.errors import CheckpointError, DataError, RecipeError, RunError
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs
from gmmcli.model_card import ModelCard
from gmmcli.provenance import filed_path
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.types import to_model

NAMES = ("cat", "dog", "fox")
RECIPE = """
name = "small"
data.source = {{ kind = "npz", path = '{path}' }}
model.backbone = {{ kind = "wide-resnet", depth = 10, width = 1, init = "kaiming" }}
chains.buffer_size = 3
[compute]
precision = "fp32"
[[stages]]
epochs = 1
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
"""
N = {"train": 30, "val": 12, "test": 40}


def write(path: Path, seed: int = 0, n_classes: int = 3, shape: tuple[int, ...] = (8, 8), **n: int) -> Path:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {"class_names": np.array([*NAMES, "gnu"][:n_classes])}
    for name, count in (N | n).items():
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{name}_labels"] = np.arange(count) % n_classes
    np.savez(path, **arrays)
    return path


def checkpoint(run: Run, step: int, gamma2: float | None = 1.5, best_step: int = 0) -> None:
    """An untrained model of the step's own weights."""
    card = ModelCard(run.recipe, NAMES, (1, 8, 8), gamma2)
    parts = {"model": Part(run.recipe.model.build(3, 1, seed=step).state_dict(), card.dump())}
    Checkpoint.save(run.path / "checkpoints", step, parts, {"step": step, "best_step": best_step})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two checkpoints, the earlier one the better; read-only to its tests."""
    folder = tmp_path_factory.mktemp("subject")
    run = Run.create(Recipe.loads(RECIPE.format(path=write(folder / "own.npz"))), folder / "runs", [])
    checkpoint(run, 10, gamma2=0.5)
    checkpoint(run, 20, best_step=10)
    return run


@pytest.fixture
def other(tmp_path: Path) -> Callable[..., str]:
    """A source of other images."""
    return lambda **more: f"npz:{write(tmp_path / 'my other.npz', seed=1, **more)}"


def test_a_run_is_opened_with_its_newest_model_and_its_own_test_images(run: Run) -> None:
    subject = Subject.open(run.path)
    own = Npz(path=run.recipe.data.source.path).load()  # type: ignore[union-attr]
    assert (subject.run.id, subject.step, subject.split, subject.foreign, subject.best) == (run.id, 20, "test", False, False)
    assert (subject.card.class_names, subject.gamma2, subject.model.training) == (NAMES, 1.5, False)
    assert torch.equal(subject.images.images, own.test.images)
    assert torch.equal(subject.images.labels, own.test.labels)
    assert torch.equal(predict(subject.model, own.test.images), predict(run.model(), own.test.images))


def test_the_best_checkpoint_is_step_card_and_model_at_once(run: Run) -> None:
    subject = Subject.open(run.id, run.path.parent, best=True)
    assert (subject.step, subject.gamma2, subject.best) == (10, 0.5, True)
    assert torch.equal(predict(subject.model, subject.images.images), predict(run.model(best=True), subject.images.images))
    assert not torch.equal(predict(subject.model, subject.images.images), predict(run.model(), subject.images.images))


@pytest.mark.parametrize(("split", "n"), [("train", 30), ("validation", 12), ("test", 40)])
def test_each_split_may_be_asked_about(split: Any, n: int, run: Run) -> None:
    subject = Subject.open(run.path, split=split)
    assert len(subject.images.labels) == n
    assert torch.equal(subject.images.images, subject.dataset.split(split).images)


def test_other_images_are_asked_about_but_validation_stays_the_runs_own(run: Run, other: Callable[..., str]) -> None:
    own, subject = Subject.open(run.path), Subject.open(run.path, data=other(test=17))
    assert subject.foreign
    assert torch.equal(subject.images.images, subject.dataset.test.images)
    assert len(subject.images.labels) == 17
    assert torch.equal(subject.validation.images, own.dataset.validation.images)
    assert torch.equal(own.validation.images, own.dataset.validation.images)
    assert not torch.equal(subject.dataset.validation.images, own.dataset.validation.images)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"shape": (16, 16)}, "has images of 16 x 16 x 1, run {} takes 8 x 8 x 1"),
        ({"shape": (8, 8, 3)}, "has images of 8 x 8 x 3, run {} takes 8 x 8 x 1"),
        ({"n_classes": 4}, "has 4 classes, run {} knows 3"),
    ],
)
def test_images_of_another_kind_are_refused(more: dict[str, Any], message: str, run: Run, other: Callable[..., str]) -> None:
    with pytest.raises(RecipeError) as error:
        Subject.open(run.path, data=other(**more))
    assert error.value.message.endswith("my other.npz " + message.format(run.id))
    assert "gmmc eval ood" in error.value.hint
    assert error.value.exit_code == 2


@pytest.mark.parametrize(("data", "kind"), [("npz:gone.npz", DataError), ("digit", RecipeError)])
def test_images_that_are_not_there(data: str, kind: type[Exception], run: Run) -> None:
    with pytest.raises(kind):
        Subject.open(run.path, data=data)


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run nothing"):
        Subject.open("nothing", tmp_path)


@given(st.integers(1, 200), st.integers(1, 250), st.integers(0, 2**31))
@settings(derandomize=True, max_examples=20)
def test_chosen_are_so_many_positions_in_order_none_twice(total: int, n: int, seed: int) -> None:
    positions = subset(total, n, seed).tolist()
    assert len(positions) == min(n, total)
    assert positions == sorted(set(positions) & set(range(total)))
    assert positions == subset(total, n, seed).tolist()


@pytest.mark.parametrize("n", [None, 7, 8])
def test_all_are_chosen_where_no_fewer_are_wanted(n: int | None) -> None:
    assert subset(7, n, seed=1).tolist() == list(range(7))


def test_every_position_is_chosen_as_often_over_the_seeds() -> None:
    counts = torch.stack([subset(20, 5, seed).bincount(minlength=20) for seed in range(400)]).sum(0)
    spread = (400 * 0.25 * 0.75) ** 0.5
    assert (counts - 100).abs().max() < 4 * spread
    assert counts.sum() == 2000


def test_n_takes_images_with_their_labels_by_the_seed(run: Run) -> None:
    one, again, two = (Subject.open(run.path, n=9, seed=seed).images for seed in (1, 1, 2))
    every = Subject.open(run.path).images
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, two.images)
    for image, label in zip(*one.batch(), strict=True):
        (at,) = (every.images == image).flatten(1).all(1).nonzero().flatten().tolist()
        assert every.labels[at] == label


def test_the_variance_of_an_unfinished_training_is_estimated_on_its_training_images(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = Run.create(run.recipe, tmp_path, [])
    checkpoint(unfinished, 5, gamma2=None)
    subject = Subject.open(unfinished.path)
    assert subject.outputs().logits.shape == (40, 3)  # the logits need none
    assert "gamma^2" not in capsys.readouterr().err
    images, labels = subject.dataset.train.batch()
    with torch.no_grad():
        distances = (subject.model.features(to_model(images)) - subject.model.means[labels]).square().sum(1)
    assert subject.gamma2 == pytest.approx(float(distances.mean()) / subject.model.means.shape[1], rel=1e-5)
    assert capsys.readouterr().err.count(f"run {unfinished.id} was not finished: gamma^2 is estimated on its training images") == 1
    assert subject.outputs(mass=True).mass is not None
    assert Subject.open(unfinished.path).gamma2 == pytest.approx(subject.gamma2)


@pytest.fixture
def counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[Subject, list[int]]:
    """A subject, and the batches that its network has met."""
    monkeypatch.setattr("gmmcli.metrics.outputs.batch_size", lambda model, like: 500)
    subject, seen = Subject.open(run.path), []

    def count(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(arguments[0]))

    subject.model.backbone.register_forward_pre_hook(count)
    return subject, seen


def test_outputs_are_those_of_one_pass_and_kept(counted: tuple[Subject, list[int]]) -> None:
    subject, seen = counted
    first = subject.outputs()
    assert first is subject.outputs()
    assert seen == [40]
    assert first.mass is None
    assert torch.equal(first.logits, outputs(subject.model, subject.images.images).logits)


def test_a_pass_with_gradients_serves_both_ways_one_without_does_not(counted: tuple[Subject, list[int]]) -> None:
    subject, seen = counted
    plain = subject.outputs()
    heavy = subject.outputs(mass=True)
    assert seen == [40, 40]
    assert heavy.mass is not None
    assert torch.equal(heavy.mass, outputs(subject.model, subject.images.images, 1.5).mass)  # type: ignore[arg-type]
    del seen[:]
    assert subject.outputs() is subject.outputs(mass=True) is heavy
    assert seen == []
    torch.testing.assert_close(plain.logits, heavy.logits)


def test_a_pass_shows_its_progress_once_unless_quiet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    subject = Subject.open(run.path, split="test", n=30)
    subject.outputs(quiet=False)
    assert "test 30/30" in capsys.readouterr().err
    subject.outputs(quiet=False)
    Subject.open(run.path, n=20).outputs()
    assert capsys.readouterr() == ("", "")


def test_two_subjects_share_no_pass(run: Run) -> None:
    one, two = Subject.open(run.path, n=10), Subject.open(run.path, n=20)
    assert (len(one.outputs().logits), len(two.outputs().logits)) == (10, 20)


@pytest.mark.parametrize(
    ("foreign", "more", "name"),
    [
        (False, {}, ""),
        (False, {"seed": 2}, ""),
        (False, {"split": "validation"}, " validation"),
        (False, {"split": "train"}, " train"),
        (False, {"best": True}, " best"),
        (False, {"n": 7}, " n7"),
        (False, {"n": 7, "seed": 2}, " n7 seed 2"),
        (False, {"n": 40}, ""),
        (False, {"n": 1000}, ""),
        (True, {}, " OTHER test"),
        (True, {"split": "train", "best": True, "n": 7}, " OTHER train best n7"),
    ],
)
def test_a_result_is_named_by_what_it_is_about(foreign: bool, more: dict[str, Any], name: str, run: Run, other: Callable[..., str]) -> None:
    subject = Subject.open(run.path, data=other() if foreign else None, **more)
    assert subject.name("eval accuracy") == f"eval accuracy{name.replace('OTHER', filed_path(subject.dataset.name))}"


def test_a_seed_that_draws_more_than_the_images_is_part_of_the_name(run: Run) -> None:
    subject = Subject.open(run.path, seed=2)
    assert [subject.name(command) for command in ("eval accuracy", "eval calibrate", "eval ood", "tsne")] == [
        *("eval accuracy", "eval calibrate"),
        *("eval ood seed 2", "tsne seed 2"),
    ]


def test_a_commands_own_settings_come_first_in_the_name(run: Run) -> None:
    assert Subject.open(run.path, best=True).name("tsne", "pixels", "noise") == "tsne pixels noise best"


def test_a_result_is_named_by_how_it_departs_from_the_usual(run: Run) -> None:
    assert Subject.open(run.path, n=7).name("attack apgd", "loss margin") == "attack apgd loss margin n7"


def test_a_result_says_what_it_rests_on(run: Run) -> None:
    subject = Subject.open(run.path, split="validation", n=7)
    protocol, values = {"interval": "none"}, {"accuracy": 0.5}
    result = subject.result("eval accuracy", protocol, values)
    assert result == {
        "schema": 1,
        "command": "eval accuracy",
        "run": run.id,
        "step": 20,
        "dataset": subject.dataset.title,
        "split": "validation",
        "n": 7,
        "protocol": protocol,
        "values": values,
    }
    assert subject.result("eval generate", protocol, values, n=100)["n"] == 100


@pytest.mark.parametrize("when", ["metadata", "tensors"])
def test_a_checkpoint_that_is_removed_while_it_is_read_gives_way_to_a_newer_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    first = run.checkpoint()
    read = getattr(Checkpoint, when)

    def removed(one: Checkpoint, name: str) -> Any:
        if one == first and one.path.exists():
            checkpoint(run, first.step + 1, gamma2=2.5)
            one.remove()
        return read(one, name)

    monkeypatch.setattr(Checkpoint, when, removed)
    subject = Subject.open(run.path)
    assert (subject.step, subject.gamma2) == (first.step + 1, 2.5)


def test_a_damaged_checkpoint_is_not_waited_for(run: Run) -> None:
    path = run.checkpoint().path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        Subject.open(run.path)
