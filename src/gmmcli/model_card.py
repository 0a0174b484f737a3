"""What a model says of itself, and the model that is built from that."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch

from gmmcli.core.classifier import Classifier
from gmmcli.errors import CheckpointError, RecipeError, RunError
from gmmcli.recipe import Recipe
from gmmcli.registry import PartError


@dataclass(frozen=True)
class ModelCard:
    """What ``model.safetensors`` says of itself, enough to rebuild the model without its run or its data."""

    recipe: Recipe
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """(channel, height, width)."""
    gamma2: float | None

    def dump(self) -> dict[str, str]:
        """As header strings."""
        return {
            "recipe": self.recipe.dumps(),
            "class_names": json.dumps(self.class_names),
            "image_shape": json.dumps(self.image_shape),
            "gamma2": json.dumps(self.gamma2),
        }

    @classmethod
    def parse(cls, metadata: dict[str, str], origin: str) -> "ModelCard":
        """From header strings.

        Raises:
            CheckpointError: they are not a model's.
            RunError: a part of the model is from a package that is not installed.
        """
        try:
            names, shape, gamma2 = (json.loads(metadata[key]) for key in ("class_names", "image_shape", "gamma2"))
            recipe = Recipe.loads(metadata["recipe"], origin, of_run=True)
        except PartError as error:
            raise RunError(f"{origin} cannot be opened: {error.message}", error.hint) from error
        except (KeyError, ValueError, RecipeError) as error:
            raise CheckpointError(f"{origin} is not a gmmc model: its header lacks a readable {error}") from error
        return cls(recipe, tuple(names), (shape[0], shape[1], shape[2]), gamma2)

    def build(self) -> Classifier:
        """An untrained model of this card, on the cpu."""
        model = self.recipe.model.build(len(self.class_names), self.image_shape[0])
        model.gamma2 = self.gamma2
        return model


def load_model(path: str | Path) -> tuple[Classifier, ModelCard]:
    """Reopen a published ``model.safetensors`` by itself, without its run.

    Returns:
        The classifier in evaluation mode on the cpu, and its card.

    Raises:
        CheckpointError: the file is not a gmmc model.
        RunError: a part of the model is from a package that is not installed.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            card = ModelCard.parse(dict(file.metadata() or {}), str(path))
            model = card.build()
            model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:  # RuntimeError: tensors that are not the card's model
        raise CheckpointError(f"{path} cannot be read as a model ({error})") from error
    return card.recipe.compute.place(model, torch.device("cpu")).eval(), card
