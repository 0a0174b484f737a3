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
from gmmcli.train import plan
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState

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
    assert all(d.seconds <= seconds and d.whole is None for d, seconds in zip(drafts, (100, 1000, 100_000), strict=True))
    assert {d.recipe.name for d in drafts} == {"mine"}


def test_with_too_little_time_the_smallest_is_shortened_and_says_so() -> None:
    few = Survey(Folder(), ("a", "b"), 900, 3, 32)
    whole = draft(1e9, few, "classify")
    short = draft(whole.seconds / 4, few, "classify")
    assert short.whole == sum(whole.n_steps) == 4 * sum(short.n_steps)
    assert short.seconds == whole.seconds / 4
    assert "That is 25% of the steps" in short.text and "longer than" not in short.text
    assert "That is" not in whole.text


def test_where_one_epoch_of_each_stage_takes_longer_that_is_said() -> None:
    short = draft(1.0)
    assert [stage.epochs for stage in short.recipe.stages] == [1, 1]
    assert "That is 50% of the steps" in short.text  # 1 of 3 epochs, and 1 of 1
    assert "It takes longer than the 1 s there are" in short.text


def test_the_seconds_are_steps_times_seconds_of_a_step() -> None:
    one = fitted("mine", PICTURES, "both", 1e9, measure=lambda *_: (1.0, 10.0))
    steps = [epochs * (45_000 // 128) for epochs in (40, 12)]
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


def test_steps_of_each_stage_are_timed_unless_they_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[tuple[str, int, float]] = []

    def step_seconds(setup: Setup, state: TrainState, step: int, n: int) -> float:
        seconds = one_step(setup, state, step, n)
        timed.append((setup.recipe.stage_at(step / setup.loader.steps_per_epoch)[0].objective.kind, n, seconds))
        return seconds

    one_step = plan.step_seconds
    monkeypatch.setattr(plan, "step_seconds", step_seconds)
    recipe = fitted("mine", DIGITS, "both", 1e9, measure=by_width).recipe
    times = measured(recipe, DIGITS, 8)
    assert timed == [
        (kind, 1 + plan.MEASURED_STEPS, s) for kind, s in zip(("center-regression", "contrastive-divergence"), times, strict=True)
    ]
    monkeypatch.setattr(fit, "SHORT", 0.0)
    assert len(measured(recipe, DIGITS, 8)) == 2 and [n for _, n, _ in timed[2:]] == [1, 1]
    monkeypatch.setattr(fit, "PATIENCE", 0.0)
    assert all(least > 0 for least in measured(recipe, DIGITS, 8)) and len(timed) == 4


def test_the_weights_to_start_from_must_be_there() -> None:
    with pytest.raises(RunError, match="no run absent"):
        fitted("mine", DIGITS, "both", 1e9, origin="absent", measure=by_width)


def test_the_file_reads_as_the_recipe(tmp_path: Path) -> None:
    made = draft(1000)
    (tmp_path / "mine.toml").write_text(made.text, encoding="utf-8")
    assert Recipe.load(tmp_path / "mine.toml") == made.recipe
    assert "3 classes, 45,000 images to train on, 32 x 32, colour." in made.text
