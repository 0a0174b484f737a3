"""The largest recipe that the time allows; the time itself is measured once, and otherwise given."""

from pathlib import Path

import pytest

from gmmcli.data.digits import Digits
from gmmcli.data.folder import Folder
from gmmcli.data.survey import Survey
from gmmcli.draft import fit
from gmmcli.draft.fit import Draft, fitted, measured
from gmmcli.draft.sizes import Goal
from gmmcli.errors import RecipeError, RunError
from gmmcli.recipe import Recipe

PICTURES = Survey(Folder(path="pictures"), ("cat", "dog", "fox"), 45_000, 3, 32)
DIGITS = Survey(Digits(), tuple("0123456789"), 1257, 1, 8)


def by_width(recipe: Recipe, survey: Survey, side: int) -> tuple[float, ...]:
    """The seconds of steps on an imagined machine."""
    return tuple(recipe.model.backbone.dim**2 / 1e6 for _ in recipe.stages)


def draft(seconds: float, survey: Survey = PICTURES, goal: Goal = "both") -> Draft:
    return fitted("mine", survey, goal, seconds, measure=by_width)


def test_more_time_is_a_larger_network() -> None:
    drafts = [draft(seconds) for seconds in (100, 1000, 100_000)]
    assert [d.pattern.name for d in drafts] == ["folder_joint", "cifar10_small_joint", "cifar10_joint_fast"]
    assert all(d.seconds <= seconds and d.share == 1 for d, seconds in zip(drafts, (100, 1000, 100_000), strict=True))
    assert {d.recipe.name for d in drafts} == {"mine"}


def test_with_too_little_time_the_smallest_is_shortened_and_says_so() -> None:
    whole = draft(1e9, goal="classify", survey=Survey(Folder(), ("a", "b"), 900, 3, 32))
    short = draft(whole.seconds / 4, goal="classify", survey=Survey(Folder(), ("a", "b"), 900, 3, 32))
    assert short.share == pytest.approx(0.25)
    assert short.seconds == pytest.approx(whole.seconds / 4, rel=0.05)
    assert "That is 25% of the steps" in short.text
    assert "of the steps" not in whole.text


def test_the_seconds_are_steps_times_seconds_of_a_step() -> None:
    one = fitted("mine", PICTURES, "both", 1e9, measure=lambda *_: (1.0, 10.0))
    steps = [epochs * (45_000 // 64) for epochs in (40, 20)]
    assert (one.n_steps, one.seconds) == (tuple(steps), steps[0] + 10 * steps[1])


def test_a_larger_network_that_does_not_fit_in_memory_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(recipe: Recipe, survey: Survey, side: int) -> tuple[float, ...]:
        if recipe.model.backbone.dim > 128:
            raise RecipeError("no memory")
        return by_width(recipe, survey, side)

    assert fitted("mine", PICTURES, "both", 1e9, measure=measure).pattern.name == "folder_joint"
    monkeypatch.setattr(fit, "total_memory", lambda device: 2**20)
    with pytest.raises(RecipeError, match=r"images of 8 x 8 takes 0\.\d GiB of memory, and there are 0\.0"):
        fitted("mine", DIGITS, "both", 1e9)


def test_a_step_of_each_stage_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = fitted("mine", DIGITS, "both", 1e9, measure=by_width).recipe
    regression, contrast = measured(recipe, DIGITS, 8)
    assert 0 < 2 * regression < contrast  # five steps of chains, and twice the images
    monkeypatch.setattr(fit, "PATIENCE", 0.0)
    assert all(0 < least < step for least, step in zip(measured(recipe, DIGITS, 8), (regression, contrast), strict=True))


def test_the_weights_to_start_from_must_be_there() -> None:
    with pytest.raises(RunError, match="no run absent"):
        fitted("mine", DIGITS, "both", 1e9, origin="absent", measure=by_width)


def test_the_file_reads_as_the_recipe(tmp_path: Path) -> None:
    made = draft(1000)
    (tmp_path / "mine.toml").write_text(made.text, encoding="utf-8")
    assert Recipe.load(tmp_path / "mine.toml") == made.recipe
    assert "3 classes, 45,000 images to train on, 32 x 32, colour." in made.text
