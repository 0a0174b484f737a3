import re

import pytest

from gmmcli.core.objectives import ContrastiveDivergence, CrossEntropy
from gmmcli.data.npz import Npz
from gmmcli.errors import RecipeError
from gmmcli.overrides import delete, differences, flatten
from gmmcli.recipe import Recipe

MINIMAL = """
name = "minimal"
[[stages]]
epochs = 2
objective = { kind = "contrastive-divergence", margin = 2.0 }
"""


def test_set_takes_typed_values_and_bare_strings() -> None:
    overrides = [
        "seed=7",
        "optim.learning_rate = 3e-4",
        "data.flip=true",
        "optim.milestones=[30, 50]",
        "compute.precision=bf16",
        "name=other",
    ]
    recipe = Recipe.loads(MINIMAL, overrides=overrides)
    assert (recipe.seed, recipe.optim.learning_rate, recipe.data.flip) == (7, 3e-4, True)
    assert (recipe.optim.milestones, recipe.compute.precision, recipe.name) == ((30, 50), "bf16", "other")


def test_set_creates_nested_tables_and_whole_ones() -> None:
    recipe = Recipe.loads(MINIMAL, overrides=["chains.sampler.n_steps=3", "data.source={kind='npz', path='x.npz'}"])
    assert recipe.chains.sampler.n_steps == 3
    assert recipe.data.source == Npz(path="x.npz")


def test_set_reaches_into_lists_by_index() -> None:
    recipe = Recipe.loads(MINIMAL, overrides=["stages.0.epochs=9", "optim.milestones=[1, 2]", "optim.milestones.1=5"])
    assert recipe.stages[0].epochs == 9
    assert recipe.optim.milestones == (1, 5)


def test_the_last_set_of_a_key_wins() -> None:
    assert Recipe.loads(MINIMAL, overrides=["seed=2", "seed=3"]).seed == 3


def test_a_changed_kind_clears_its_table_and_the_same_kind_does_not() -> None:
    assert Recipe.loads(MINIMAL, overrides=["stages.0.objective.kind=cross-entropy"]).stages[0].objective == CrossEntropy()
    kept = Recipe.loads(MINIMAL, overrides=["stages.0.objective.kind=contrastive-divergence"]).stages[0].objective
    assert kept == ContrastiveDivergence(margin=2.0)


def test_naming_the_kind_that_was_meant_by_default_keeps_the_table() -> None:
    assert Recipe.loads(MINIMAL, overrides=["optim.learning_rate=0.5", "optim.kind=adam"]).optim.learning_rate == 0.5


@pytest.mark.parametrize("override", ["seed", "", "=3", ".seed=3", "optim.=3", "optim..decay=3"])
def test_a_malformed_set_is_an_error_with_an_example(override: str) -> None:
    with pytest.raises(RecipeError, match=f"^--set {re.escape(repr(override))} is not of the form key=value$") as error:
        Recipe.loads(MINIMAL, overrides=[override])
    assert "optim.learning_rate=3e-4" in error.value.hint


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.1.epochs=3", "--set stages.1.epochs: '1' is not one of the 1 entries"),
        ("stages.first.epochs=3", "--set stages.first.epochs: 'first' is not one of the 1 entries"),
        ("stages.-1=3", "--set stages.-1: '-1' is not one of the 1 entries"),
        ("name.x=3", "--set name.x: name is a value, not a table"),
        ("stages.²=3", "--set stages.²: '²' is not one of the 1 entries"),
        ("stages.٣=3", "--set stages.٣: '٣' is not one of the 1 entries"),
        ("stages.\udcff=3", r"--set 'stages.\udcff=3' is not UTF-8, which a recipe is"),
        ("name=\udcff", r"--set 'name=\udcff' is not UTF-8, which a recipe is"),
    ],
)
def test_a_set_that_leads_nowhere_is_an_error(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        Recipe.loads(MINIMAL, overrides=[override])


def test_flatten_dots_tables_and_lists_of_tables_but_not_plain_lists() -> None:
    document = {"a": 1, "b": {"c": 2, "d": {"e": [3, 4]}}, "s": ({"x": 5}, {"x": 6}), "empty": []}
    assert flatten(document) == {"a": 1, "b.c": 2, "b.d.e": [3, 4], "s.0.x": 5, "s.1.x": 6, "empty": []}


def test_flattened_keys_are_keys_that_set_understands() -> None:
    recipe = Recipe.loads(MINIMAL)
    text = recipe.dumps()
    for key, value in flatten(recipe.document()).items():
        literal = str(value).lower() if isinstance(value, bool) else list(value) if isinstance(value, tuple) else repr(value)
        assert Recipe.loads(text, overrides=[f"{key}={literal}"]) == recipe


LONG = {
    "an index of 5,000 digits": f"stages.{'9' * 5000}.epochs=1",
    "a key of 5,000 parts": "a." * 5000 + "a=1",
    "a long key": f"{'k' * 10**5}=1",
    "a long value": f"data.batch_size={'y' * 10**5}",
    "5,000 digits": f"data.batch_size={'9' * 5000}",
    "4,000 hexadecimal digits": f"data.batch_size=0x{'f' * 4000}",
    "500 brackets": f"data.batch_size={'[' * 500}{']' * 500}",
    "a long list": f"data.batch_size=[{'1,' * 10**5}]",
}


@pytest.mark.parametrize("name", LONG)
def test_what_is_long_or_deep_is_refused_in_one_readable_line(name: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.loads(MINIMAL, overrides=[LONG[name]])
    assert len(error.value.message) < 350


def test_a_value_does_not_end_where_another_key_begins() -> None:
    with pytest.raises(RecipeError, match=r"`seed` must be an integer, got '1\\nname = 2'"):
        Recipe.loads(MINIMAL, overrides=["seed=1\nname = 2"])


def test_delete_says_whether_the_key_was_there() -> None:
    document = {"a": {"b": 1, "c": 2}, "a.b": 3}
    assert delete(document, "a.b") and not delete(document, "a.b")
    assert not any(delete(document, dotted) for dotted in ("x", "a.c.d", "x.y", "a.x"))
    assert document == {"a": {"c": 2}, "a.b": 3}


def test_differences_are_the_keys_of_several_values_and_no_key_that_others_lack() -> None:
    documents = [{"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2], "d": 2}, "new": 3}, {"a": 1, "b": {"c": [2]}}]
    assert differences(documents) == [{"b.c": [1]}, {"b.c": [2]}, {"b.c": [2]}]
    assert differences([{"a": 1}]) == [{}]
    assert differences([]) == []
