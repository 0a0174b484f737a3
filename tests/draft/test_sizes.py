"""Tuned settings are kept where images are as they were tuned on, and sizes fit where they are not."""

from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.data.digits import Digits
from gmmcli.data.folder import Folder
from gmmcli.data.survey import Survey
from gmmcli.draft.sizes import BATCHES, EPOCHS, FLOATS, ICON, JOINT, SIDE, Goal, batch_size, patterns, side_of, sized
from gmmcli.errors import RecipeError
from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe


def found(n_train: int, n_classes: int, side: int, channels: int = 3, names: str = "class {}") -> Survey:
    return Survey(Folder(path="pictures"), tuple(names.format(k) for k in range(n_classes)), n_train, channels, side)


def recipe(survey: Survey, goal: Goal, which: int = 0, share: float = 1.0) -> Recipe:
    side = side_of(survey, None)
    return Recipe.loads(tomli_w.dumps(sized(patterns(survey, goal, side)[which], survey, goal, side, share)))


@pytest.mark.parametrize(
    ("shipped", "survey", "goal", "which"),
    [
        ("folder_dis", found(729, 3, 32), "classify", 0),
        ("folder_joint", found(729, 3, 32), "both", 0),
        ("cifar10_small_dis", found(45_000, 10, 32), "classify", 1),
        ("cifar10_small_joint", found(45_000, 10, 32), "both", 1),
        ("cifar10_small_joint", found(45_000, 10, 32), "generate", 1),
        ("cifar10_joint_fast", found(45_000, 10, 32), "both", 2),
        ("digits_dis", found(1257, 10, 8, 1), "classify", 0),
        ("digits_gen", found(1257, 10, 8, 1), "generate", 0),
        ("digits_joint", found(1257, 10, 8, 1), "both", 0),
        ("mnist_dis", found(54_000, 10, 28, 1), "classify", 0),
        ("mnist_gen", found(54_000, 10, 28, 1), "generate", 0),
        ("mnist_joint", found(54_000, 10, 28, 1), "both", 0),
    ],
)
def test_on_images_like_those_of_a_shipped_recipe_it_is_that_recipe(shipped: str, survey: Survey, goal: Goal, which: int) -> None:
    ours, theirs = (flatten(one.document()) for one in (recipe(survey, goal, which), Recipe.load(shipped)))
    differ = {key for key in ours | theirs if ours.get(key) != theirs.get(key)}
    assert not {key for key in differ if not key.startswith(("data.source.", "log.", "guard."))}


@pytest.mark.parametrize("n_train", [10_000, 45_000])
def test_with_many_images_the_small_recipe_is_as_long_as_the_quick_one_of_cifar(n_train: int) -> None:
    small, quick = recipe(found(n_train, 10, 32), "both"), Recipe.load("cifar10_quick_joint")
    lengths = [[stage.epochs * (n // 64) for stage in one.stages] for one, n in ((small, n_train), (quick, 45_000))]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.15)


@settings(max_examples=40, derandomize=True)
@given(
    st.integers(2, 1500),
    st.integers(1, 2000),
    st.integers(8, 300),
    st.sampled_from([1, 3]),
    st.sampled_from(["classify", "generate", "both"]),
    st.floats(0, 1),
)
def test_whatever_the_images_are_the_recipe_serves_them(
    n_classes: int, each: int, side: int, channels: int, goal: Goal, share: float
) -> None:
    survey = found(each * n_classes, n_classes, side, channels)
    for which in range(len(patterns(survey, goal, side_of(survey, None)))):
        made = recipe(survey, goal, which, share)
        made.check(n_classes)
        per_epoch = survey.n_train // made.data.batch_size
        assert per_epoch >= 1
        assert made.data.crop_padding < side
        for stage in made.stages:
            optim: Any = stage.optim or made.optim
            assert optim.warmup_steps <= per_epoch * made.epochs / 8
        assert (made.needs_chains, made.log.preview_every > 0) == ((False, False) if goal == "classify" else (True, True))
        assert (made.log.best, made.validates_samples) == (("samples", True) if goal == "generate" else ("accuracy", False))
        assert max(stage.epochs for stage in made.stages) <= max(EPOCHS, 601)


def test_a_batch_is_as_large_as_the_images_allow() -> None:
    for tuned in BATCHES:
        assert [batch_size(n, tuned) for n in (5, 16, 100, 511, 512, 1023, 1024, 10**6)] == [5, 16, 16, 16, 32, 32, *BATCHES[:1] * 2]
    assert [batch_size(n, 128) for n in (1024, 2047, 2048)] == [64, 64, 128]


def test_many_classes_get_features_slots_and_memory() -> None:
    made = recipe(found(1_000_000, 1000, 64), "both", 1)
    assert made.model.backbone.dim >= 999
    assert made.chains.buffer_size == 100_000
    assert (made.chains.dtype, 4 * made.chains.buffer_size * 3 * SIDE**2 > FLOATS) == ("uint8", True)
    assert made.chains.start.rank == 64  # type: ignore[attr-defined]  # 0.8 GB; 128 would be 1.6


def test_steps_of_chains_grow_with_the_image() -> None:
    survey = found(729, 3, 64)
    large = Recipe.loads(tomli_w.dumps(sized(JOINT[0], survey, "both", side_of(survey, 64))))
    assert (large.chains.sampler.step_size, large.data.crop_padding) == (1.0, 8)
    assert large.data.source == Folder(path="pictures", size=64)


def test_less_time_is_fewer_epochs_of_every_stage() -> None:
    short = recipe(found(729, 3, 32), "both", share=0.1)
    assert [(stage.epochs, stage.ramp_epochs) for stage in short.stages] == [(6, 0), (3, 1)]


def test_characters_are_not_mirrored() -> None:
    assert recipe(found(729, 3, 32), "both").data.flip
    assert not recipe(found(729, 3, 32, names="{}"), "both").data.flip


def test_small_images_are_not_halved_at_once() -> None:
    assert [recipe(found(729, 3, side), "both").model.backbone.stem_stride for side in (ICON + 1, 23, 24, 32)] == [1, 1, 2, 2]  # type: ignore[attr-defined]


def test_pictures_are_made_small_and_arrays_stay_as_they_are() -> None:
    assert [side_of(found(9, 3, side), None) for side in (5, 20, 32, 4000)] == [8, 20, 32, 32]
    assert side_of(found(9, 3, 20), 64) == 64
    digits = Survey(Digits(), ("0", "1"), 9, 1, 8)
    assert (side_of(digits, None), side_of(digits, 8)) == (8, 8)
    with pytest.raises(RecipeError, match="--size 16: these images are 8 x 8"):
        side_of(digits, 16)
