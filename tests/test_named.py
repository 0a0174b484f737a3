"""What users name; radii are tested with the attacks that take them (cli/test_attack.py)."""

import pytest
import torch

from gmmcli.errors import RecipeError
from gmmcli.named import class_index, class_indices, select_device


def test_the_cpu_is_always_there() -> None:
    assert select_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_a_recipe_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    with pytest.raises(RecipeError, match="torch finds no usable GPU") as error:
        select_device("cuda")
    assert error.value.hint == "use --device auto"


ANIMALS = ("cat", "dog", "2", "sea lion")


@pytest.mark.parametrize(
    ("label", "indices"),
    [("all", [0, 1, 2, 3]), ("cat", [0]), ("sea lion", [3]), ("0", [0]), ("3", [3]), ("2", [2]), ("1", [1])],
)
def test_a_class_is_meant_by_name_by_index_or_with_all(label: str, indices: list[int]) -> None:
    assert class_indices(label, ANIMALS) == indices


def test_an_image_has_one_class() -> None:
    assert class_index("sea lion", ANIMALS) == 3
    with pytest.raises(RecipeError, match="one class, not all"):
        class_index("all", ANIMALS)


def test_a_name_goes_before_an_index() -> None:
    assert class_indices("1", ("1", "0")) == [0]


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        ("cats", "did you mean cat?"),
        ("sealion", "did you mean sea lion?"),
        ("4", "give an index from 0 to 3, all, or one of: cat, dog, 2, sea lion"),
        ("-1", "give an index from 0 to 3, all, or one of: cat, dog, 2, sea lion"),
        ("", "give an index from 0 to 3, all, or one of: cat, dog, 2, sea lion"),
    ],
)
def test_no_class_is_meant_and_a_near_name_is_offered(label: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=f"no class {label!r} among the 4 of this run") as error:
        class_indices(label, ANIMALS)
    assert error.value.hint == hint


@pytest.mark.parametrize("label", ["11", "+1", "1.5", "²", "1" * 4000, "-0"])
def test_a_number_that_is_no_index_gets_the_range_and_no_other_number(label: str) -> None:
    with pytest.raises(RecipeError) as error:
        class_indices(label, tuple("0123456789"))
    assert error.value.hint.startswith("give an index from 0 to 9, all, or one of: 0, 1")


def test_no_more_than_twenty_names_are_offered() -> None:
    with pytest.raises(RecipeError) as error:
        class_indices("?", tuple(f"class {k}" for k in range(1000)))
    assert error.value.hint.endswith("class 18, class 19")
