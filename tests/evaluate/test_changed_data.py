"""Images that come and go after a training: none that was trained on is tested on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.errors import DataError, RecipeError
from gmmcli.evaluate.subject import Subject
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

RECIPE = """
name = "small"
data.source = {{ kind = "folder", path = '{path}', size = 8 }}
data.batch_size = 8
model.backbone = {{ kind = "wide-resnet", depth = 10, width = 1, init = "kaiming", stem_stride = 2 }}
chains.buffer_size = 3
chains.sampler = {{ kind = "sgld", n_steps = 1, step_size = 0.1 }}
[compute]
device = "cpu"
precision = "fp32"
[[stages]]
epochs = 1
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
[log]
preview_every = 0
"""
CLASSES = ("cat", "dog", "fox")


def photographs(folder: Path, n: int, start: int = 0, size: int = 8, seed: int = 0) -> Path:
    """N pictures of noise, each of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + n):
        pixels = np.random.default_rng((seed, i, len(folder.name), ord(folder.name[0]))).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 45 photographs, and a run that was trained on it; read-only."""
    here = tmp_path_factory.mktemp("changed")
    for name in CLASSES:
        photographs(here / "own" / name, 15)
    recipe = Recipe.loads(RECIPE.format(path="own"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        run = Run.create(recipe, here / "runs", [])
        train(Setup.prepare(recipe), run, quiet=True)
    return here


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write into, and the current directory."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "here"))
    return Path()


@pytest.fixture
def run(here: Path) -> Run:
    (path,) = (here / "runs").iterdir()
    return Run(path)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b)


def rows(subject: Subject, split: str = "test") -> set[bytes]:
    return {image.numpy().tobytes() for image in subject.dataset.split(split).batch()[0]}  # type: ignore[arg-type]


def test_unchanged_data_is_silent_and_the_same(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    own, opened = run.recipe.data.source.load(), Subject.open(run.path).dataset
    for name in ("train", "validation", "test"):
        assert same(own.split(name).batch()[0], opened.split(name).batch()[0])
    assert capsys.readouterr() == ("", "")


def test_one_more_photograph_moves_no_other(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = Subject.open(run.path)
    photographs(Path("own/cat"), 1, start=99)
    dealt_anew = run.recipe.data.source.load()
    assert not same(dealt_anew.test.batch()[0][:-1], before.images.batch()[0])  # what happened once
    after = Subject.open(run.path)
    assert len(after.images) == len(before.images) + 1
    assert same(after.images.batch()[0][:-1], before.images.batch()[0])
    assert same(after.training.batch()[0], before.training.batch()[0])
    assert not rows(after) & (rows(before, "train") | rows(before, "validation"))
    assert capsys.readouterr().err == f"gmmc: warning: own has changed since run {run.id} was trained: 1 image is new\n"


def test_a_change_is_told_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for i in (3, 4, 5):
        Path(f"own/dog/{i:03}.png").unlink()
    for _ in range(3):
        run.dataset()
    assert capsys.readouterr().err == f"gmmc: warning: own has changed since run {run.id} was trained: 3 images are gone\n"


def test_training_resumes_where_images_were_added_and_not_where_some_are_gone(run: Run) -> None:
    photographs(Path("own/cat"), 2, start=90)
    train(Setup.prepare(run.recipe, run.dataset()), run, resume=True, quiet=True)
    gone = next(image for image in sorted(Path("own/cat").iterdir()) if image.name < "015" and _is_trained_on(run, image))
    gone.unlink()
    run = Run(run.path)
    with pytest.raises(DataError, match=r"the images to train on are not those that run .* was started with") as error:
        train(Setup.prepare(run.recipe, run.dataset()), run, resume=True, quiet=True)
    assert "start a new training" in error.value.hint
    assert error.value.exit_code == 3


def _is_trained_on(run: Run, path: Path) -> bool:
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    return bool((run.dataset().train.batch()[0] == pixels).flatten(1).all(1).any())


def test_a_class_that_is_renamed_is_an_error_and_of_one_that_is_gone_the_others_are_tested(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Subject.open(run.path)
    shutil.move("own/cat", "cat")
    after = Subject.open(run.path)
    kept = before.images.labels > 0
    assert after.dataset.class_names == CLASSES
    assert same(after.images.batch()[0], before.images.batch()[0][kept])
    assert same(after.images.labels, before.images.labels[kept])
    assert "15 images are gone" in capsys.readouterr().err
    shutil.move("cat", "own/cow")
    with pytest.raises(RecipeError, match=r"own has the classes 'cow', 'dog', 'fox', run .* knows 'cat', 'dog', 'fox'"):
        Subject.open(run.path)


def test_a_run_without_a_fingerprint_is_evaluated_as_ever(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "data.safetensors").unlink()
    photographs(Path("own/cat"), 1, start=99)
    dealt = run.recipe.data.source.load()
    assert same(Subject.open(run.path).images.batch()[0], dealt.test.batch()[0])
    assert capsys.readouterr().err == ""


def test_every_picture_of_other_data_is_tested_on_without_train_or_test_folders(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fox", "cat"):
        photographs(Path("new") / name, 5, seed=1, size=32)
    with pytest.raises(RecipeError, match="images of 32 x 32 x 3"):
        Subject.open(run.path, data="folder:new")
    _model_of_32(run)
    subject = Subject.open(run.path, data="folder:new")
    assert subject.images.labels.tolist() == [0] * 5 + [2] * 5
    photographs(Path("new/test/dog"), 3, seed=2, size=32)
    assert Subject.open(run.path, data="folder:new").images.labels.tolist() == [1] * 3
    assert capsys.readouterr().err == ""


def _model_of_32(run: Run) -> None:
    card = ModelCard(run.recipe, CLASSES, (3, 32, 32), 1.0)
    parts = {"model": Part(run.recipe.model.build(3, 3, seed=0).state_dict(), card.dump())}
    Checkpoint.save(run.path / "checkpoints", 999, parts, {"step": 999, "best_step": 0})


def test_of_other_data_what_was_trained_on_is_left_out_and_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    own = Subject.open(run.path)
    train_images, labels = own.dataset.train.batch()
    mixed = torch.cat([train_images[:4], own.images.batch()[0], 255 - train_images[:6]]).permute(0, 2, 3, 1).numpy()
    known = torch.cat([labels[:4], own.images.labels, labels[:6]]).numpy()
    np.savez("mixed.npz", train_images=mixed[:12], train_labels=known[:12], val_images=mixed[12:], val_labels=known[12:])
    subject = Subject.open(run.path, data="npz:mixed.npz")
    assert len(subject.images) == len(mixed) - 4
    assert not rows(subject) & rows(own, "train")
    message = f"gmmc: warning: 4 of {len(mixed)} images of mixed.npz test are left out: training has used them\n"
    assert capsys.readouterr().err == message
    assert subject.name("eval accuracy") == "eval accuracy mixed.npz test"
    np.savez("used.npz", test_images=mixed[:4], test_labels=known[:4])
    with pytest.raises(DataError, match=r"used\.npz, test: run .* was trained on all of its images"):
        Subject.open(run.path, data="npz:used.npz")
