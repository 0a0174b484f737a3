"""The classes of other data are matched with the run's by name."""

from pathlib import Path

import pytest
import torch

from gmmcli.data.dataset import Dataset, Split
from gmmcli.errors import RecipeError
from gmmcli.evaluate.classes import with_classes_of
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run

ANIMALS = ("cat", "horse", "ship")


RECIPE = """
name = "x"
data.source.kind = "{}"
[[stages]]
epochs = 1
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
"""


def labels(ours: tuple[str, ...], theirs: tuple[str, ...], kind: str | None, source: str, folder: Path) -> list[int]:
    """The numbers of images of each of their classes in turn."""
    split = Split(torch.zeros(len(theirs), 1, 8, 8, dtype=torch.uint8), torch.arange(len(theirs)))
    card = ModelCard(Recipe.loads(RECIPE.format(source)), ours, (1, 8, 8), 1.0)
    found = with_classes_of(Run.create(card.recipe, folder, []), card, Dataset("new", theirs, split, split, split), kind)
    assert found.class_names == (theirs if kind is None else ours)
    assert torch.equal(found.train.labels, found.test.labels)
    return found.test.labels.tolist()


@pytest.mark.parametrize(
    ("ours", "theirs", "kind", "source", "numbers"),
    [
        (ANIMALS, ANIMALS, "folder", "folder", [0, 1, 2]),
        (ANIMALS, ("ship", "cat", "horse"), "folder", "npz", [2, 0, 1]),
        (ANIMALS, ("horse", "ship"), "folder", "folder", [1, 2]),
        (ANIMALS, ("0", "1"), "npz", "folder", [0, 1]),
        (("0", "1", "2"), ANIMALS, "folder", "npz", [0, 1, 2]),
        (("0", "1", "2"), ("0", "1", "2"), "svhn", "digits", [0, 1, 2]),
        (("0", "1", "2"), ("2", "1"), "folder", "digits", [2, 1]),
        (ANIMALS, ("bird", "dog", "truck"), None, "folder", [0, 1, 2]),
    ],
)
def test_labels_become_the_runs_own(
    ours: tuple[str, ...], theirs: tuple[str, ...], kind: str | None, source: str, numbers: list[int], tmp_path: Path
) -> None:
    assert labels(ours, theirs, kind, source, tmp_path) == numbers


@pytest.mark.parametrize(
    ("ours", "theirs", "kind", "source", "message"),
    [
        (
            ANIMALS,
            ("bird", "dog", "truck"),
            "folder",
            "folder",
            "new has the classes 'bird', 'dog', 'truck', run {} knows 'cat', 'horse', 'ship'",
        ),
        (ANIMALS, ("cat", "dog"), "folder", "folder", "new has the classes 'cat', 'dog', run {} knows 'cat', 'horse', 'ship'"),
        (ANIMALS, ("0", "1", "2"), "svhn", "folder", "new has the classes '0', '1', '2', run {} knows 'cat', 'horse', 'ship'"),
        (("0", "1", "2"), ANIMALS, "folder", "svhn", "new has the classes 'cat', 'horse', 'ship', run {} knows '0', '1', '2'"),
        (("0", "1", "2"), ("cat", "dog"), "folder", "npz", "new has the classes 'cat', 'dog', run {} knows '0', '1', '2'"),
        (ANIMALS, (*ANIMALS, "truck"), "folder", "folder", "new has 4 classes, run {} knows 3"),
        (ANIMALS, ("cat", "ship"), None, "folder", "new has 2 classes, run {} knows 3"),
    ],
)
def test_classes_that_the_run_does_not_know_are_named(
    ours: tuple[str, ...], theirs: tuple[str, ...], kind: str | None, source: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        labels(ours, theirs, kind, source, tmp_path)
    (run,) = tmp_path.iterdir()
    assert error.value.message == message.format(run.name)


def test_a_name_that_is_nearly_one_of_the_runs_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        labels(ANIMALS, ("cat", "hoarse", "ship"), "folder", "folder", tmp_path)
    assert error.value.hint == "'hoarse' is not among them: did you mean 'horse'?"
