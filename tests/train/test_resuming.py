"""An edited recipe resumes where nothing depends on what was edited, and is refused elsewhere."""

from pathlib import Path

import pytest
from trainings import DIS, TWO, Begin, Small, contents

from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.storage import write_text
from gmmcli.train.loop import train
from gmmcli.train.resuming import changes
from gmmcli.train.setup import Setup


def edited(run: Run, *overrides: str) -> Run:
    """The run with another recipe.toml."""
    write_text(run.path / "recipe.toml", Recipe.load(run.path / "recipe.toml", overrides).dumps())
    return Run(run.path)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ("model.backbone.width=2", "`model.backbone.width` cannot change in a resume: it was 1 and is 2 in recipe.toml now"),
        ("model.backbone.depth=16", "it was 10 and is 16"),
        ("model.backbone.norm=batch", "it was 'none' and is 'batch'"),
        ("model.head.kind=lda", "`model.head"),
        ("model.head.radius=20.0", "it was 10.0 and is 20.0"),
        ("seed=2", "`seed` cannot change"),
        ("optim.learning_rate=0.5", "it was 0.001 and is 0.5"),
        ("chains.buffer_size=200", "it was 100 and is 200"),
        ("chains.dtype=uint8", "it was 'float32' and is 'uint8'"),
        ("data.batch_size=8", "`data.batch_size` cannot change"),
        ("stages.0.objective.margin=3.0", "it was 2.0 and is 3.0"),
    ],
)
def test_what_weights_and_chains_depend_on_must_stay(small: Small, edit: str, sentence: str) -> None:
    kept = small()
    with pytest.raises(RecipeError) as caught:
        changes(kept, Recipe.loads(kept.dumps(), overrides=(edit,)), 5)
    assert sentence in caught.value.message


def test_every_key_that_must_not_change_is_named(small: Small) -> None:
    with pytest.raises(RecipeError, match=r"`\S+` cannot change .* now, nor (seed|data.noise_std)$"):
        changes(small(), small("seed=3", "data.noise_std=0.5"), 5)


@pytest.mark.parametrize(
    "edit",
    [
        "name=other",
        "log.every=7",
        "log.keep=1",
        "log.tensorboard=true",
        "guard.max_loss=5.0",
        "compute.precision=bf16",
        "data.source.path=elsewhere.npz",
    ],
)
def test_what_they_do_not_depend_on_may_change_and_is_told(small: Small, edit: str) -> None:
    kept = small()
    (line,) = changes(kept, Recipe.loads(kept.dumps(), overrides=(edit,)), 5)
    assert line.startswith(edit.split("=")[0])
    assert ", and was " in line
    assert changes(kept, kept, 5) == []


def test_a_shorter_last_stage_ends_the_training(begin: Begin) -> None:
    setup, run = begin(DIS)
    train(setup, run, quiet=True)
    shorter = edited(run, "stages.0.epochs=1")
    train(Setup.prepare(shorter.recipe), shorter, resume=True, quiet=True)
    assert (shorter.checkpoint().step, shorter.status) == (10, "finished")


def test_a_longer_last_stage_is_the_longer_training(begin: Begin, small: Small, tmp_path: Path) -> None:
    setup, run = begin(DIS)
    train(setup, run, quiet=True)
    longer = edited(run, "stages.0.epochs=4")
    train(Setup.prepare(longer.recipe), longer, resume=True, quiet=True)
    straight = Run.create(longer.recipe, tmp_path / "straight", [])
    train(Setup.prepare(straight.recipe), straight, quiet=True)
    assert longer.checkpoint().step == 20
    assert contents(longer.checkpoint()) == contents(straight.checkpoint())


THEN_ITS_OWN = TWO.removesuffix("}]") + ',optim={kind="sgd"}}]'


@pytest.mark.parametrize(
    ("recipe", "edit"),
    [
        ((DIS, "optim.schedule=cosine"), "stages.0.epochs=4"),  # its learning rate would jump up
        ((DIS, "stages.0.epochs=1", "optim.schedule=cosine"), "stages.0.epochs=2"),  # inside an epoch too
        ((THEN_ITS_OWN, "optim.schedule=cosine"), "stages.1.epochs=2"),  # of an earlier stage, that is scheduled over all of the training
        ((TWO,), "stages.0.epochs=2"),  # what came after was another stage
    ],
)
def test_lengths_that_would_have_made_another_training(small: Small, recipe: tuple[str, ...], edit: str) -> None:
    kept = small(*recipe)
    with pytest.raises(RecipeError, match="epochs` cannot change"):
        changes(kept, Recipe.loads(kept.dumps(), overrides=(edit,)), 5)


def test_a_resume_tells_what_changed_and_refuses_before_it_touches_anything(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    setup, run = begin(DIS)
    train(setup, run, quiet=True)
    before = contents(run.checkpoint())
    wrong = edited(run, "model.backbone.width=2")
    with pytest.raises(RecipeError, match="it was 1 and is 2"):
        train(Setup.prepare(wrong.recipe), wrong, resume=True, quiet=True)
    assert contents(run.checkpoint()) == before
    right = edited(run, "model.backbone.width=1", "log.every=9", "stages.0.epochs=3")
    train(Setup.prepare(right.recipe), right, resume=True, quiet=True)
    assert "gmmc: log.every is 9, and was 1" in capsys.readouterr().err


def test_an_unchanged_recipe_resumes_without_a_word(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """The card of a model has only the last part of a path."""
    setup, run = begin(DIS)
    train(setup, run, quiet=True)
    capsys.readouterr()
    train(setup, run, resume=True, quiet=True)
    assert capsys.readouterr().err == ""
