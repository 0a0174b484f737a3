import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import gmmcli
from gmmcli.errors import RecipeError
from gmmcli.hints import listed, nearest, plainly
from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe

FOREIGN = re.compile(r"Value error|[A-Z]\w* should|Field required|Unable to|unable to|a valid")
"""How pydantic speaks."""
KEYS = ("kind", "learning_rate", "schedule", "milestones", "weight_decay")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("lr", "learning_rate"),
        ("LR", "learning_rate"),
        ("learning_rte", "learning_rate"),
        ("rate", "learning_rate"),
        ("learning", "learning_rate"),
        ("wd", "weight_decay"),
        ("decay", "weight_decay"),
        ("epochs", None),
        ("e", None),
        ("", None),
        ("x" * 10**5, None),
    ],
)
def test_a_synonym_a_misspelling_or_a_part_leads_to_the_name(word: str, name: str | None) -> None:
    assert nearest(word, KEYS) == name


def test_a_part_of_several_names_is_none_of_them() -> None:
    assert nearest("step", ("warm_up_steps_of_a_chain", "number_of_steps_in_all")) is None


@pytest.mark.parametrize("number", ["11", "+1", "-1", "1.5"])
def test_a_number_is_no_mistyped_number(number: str) -> None:
    assert nearest(number, [str(k) for k in range(10)]) is None


def test_a_name_that_begins_with_a_number_may_be_mistyped() -> None:
    assert nearest("2026-01-02T000000Z-tini", ["2026-01-02T000000Z-tiny", "2026-01-03T000000Z-small"]) == "2026-01-02T000000Z-tiny"


def test_nearness_is_judged_in_one_place() -> None:
    folder = Path(gmmcli.__file__).parent
    assert [path.name for path in folder.rglob("*.py") if "difflib" in path.read_text(encoding="utf-8")] == ["hints.py"]


def test_a_handful_is_listed_and_the_rest_counted() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abcdefghi") == "a, b, c, d, e, f, g, h, i"
    assert listed("abcdefghij") == "a, b, c, d, e, f, g, h and 2 more"


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (int, "x", "must be an integer"),
        (int, 1.5, "must be an integer"),
        (int, "9" * 5000, "must be an integer of fewer digits"),
        (float, "x", "must be a number"),
        (bool, "x", "must be a boolean"),
        (list[int], 3, "must be a list"),
        (dict[str, int], 3, "must be a table"),
        (tuple[int, int], [1], "is missing"),
        (tuple[int], [1, 2], "must have at most 1 item"),
        (str, b"\xff", "must be a string"),
    ],
)
def test_what_pydantic_says_is_said_in_our_words(kind: type, value: object, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(value)
    assert plainly(error.value.errors()[0]["msg"]).startswith(said)


WRONG = ("true", "[1, 2]", '"x"', "-1", "1e9", "1.5", "{}", "[]", "inf", "nan", '["a"]', "[[1]]", "9" * 23, '""')


def test_no_phrase_of_pydantic_reaches_who_sets_a_key() -> None:
    text = Recipe.load("cifar10_joint").dumps()
    refused = 0
    for key in flatten(Recipe.loads(text).document()):
        for value in WRONG:
            try:
                Recipe.loads(text, overrides=[f"{key}={value}"])
            except RecipeError as error:
                refused += 1
                assert not FOREIGN.search(error.message + error.hint), error.message
    assert refused > 500


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optim.lr", "did you mean `learning_rate`?"),
        ("lr", "did you mean `optim.learning_rate`?"),
        ("batch_size", "did you mean `data.batch_size`?"),
        ("epochs", "did you mean `stages.0.epochs`?"),
        ("model.width", "did you mean `model.backbone.width`?"),
        ("sampler.step_size", "did you mean `chains.sampler`?"),
        ("zzz", "valid here: name, stages, seed, data, model, init, chains, optim and 3 more"),
    ],
)
def test_a_key_in_the_wrong_place_or_of_another_name_is_found(key: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=f"^unknown key `{re.escape(key.partition('.')[0])}") as error:
        Recipe.load("digits_gen", [f"{key}=1"])
    assert error.value.hint == hint
