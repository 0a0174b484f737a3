"""The weights of another run, or of a published model, to start a training from."""

from pathlib import Path

from torch import Tensor

from gmmcli.data.dataset import Dataset
from gmmcli.errors import RecipeError
from gmmcli.model_card import ModelCard, load_model
from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe
from gmmcli.run import open_run

SUFFIX = ".safetensors"
FREE = "backbone.init"
"""The key that two models may differ in: random weights are overwritten."""


def initial_weights(recipe: Recipe, dataset: Dataset) -> dict[str, Tensor]:
    """Return the weights that ``init.from`` names, of a run its newest; empty where it names none.

    Raises:
        RecipeError: they are those of another model, other classes or other images.
        RunError, CheckpointError: there is no such run or file, or it is damaged.
    """
    origin = recipe.init.from_
    if not origin:
        return {}
    if origin.endswith(SUFFIX):
        model, card = load_model(Path(origin))
        weights = model.state_dict()
    else:
        checkpoint = open_run(origin).checkpoint()
        card, weights = ModelCard.parse(checkpoint.metadata("model"), str(checkpoint.path)), checkpoint.tensors("model")
    _compare(card, recipe, dataset)
    return weights


def _compare(card: ModelCard, recipe: Recipe, dataset: Dataset) -> None:
    """Raise RecipeError, naming the first difference, where the weights do not fit."""
    theirs, ours = (flatten(one.document()["model"]) for one in (card.recipe, recipe))
    pairs = {f"model.{key}": (theirs.get(key), ours.get(key)) for key in theirs | ours if key != FREE}
    pairs["the number of classes"] = len(card.class_names), dataset.n_classes
    pairs["the images' (channels, height, width)"] = tuple(card.image_shape), dataset.shape
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            raise RecipeError(
                f"init.from = {recipe.init.from_!r} does not fit recipe {recipe.name}: {what} is {found!r} there and {wanted!r} here",
                "make them alike, or start from other weights",
            )
