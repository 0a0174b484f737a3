"""What a model says of itself, and the model that is built from that."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import torch
from annotated_types import Ge, Le
from pydantic import ConfigDict, TypeAdapter, ValidationError

from gmmcli.core.classifier import Classifier
from gmmcli.errors import CheckpointError, RecipeError, RunError, quoted
from gmmcli.hints import plainly
from gmmcli.recipe import Recipe
from gmmcli.registry import PartError
from gmmcli.types import Positive

Edge = Annotated[int, Ge(1), Le(2**16)]


def _checked(name: str, kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True, title=name))


HEADER = {
    "class_names": _checked("class_names", tuple[str, ...]),
    "image_shape": _checked("image_shape", tuple[Literal[1, 3], Edge, Edge]),
    "gamma2": _checked("gamma2", Positive | None),
}
"""What a header holds besides the recipe."""


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
            "recipe": without_paths(self.recipe).dumps(),
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
            values = {key: check.validate_json(metadata[key]) for key, check in HEADER.items()}
            recipe = Recipe.loads(metadata["recipe"], origin, of_run=True)
        except PartError as error:
            raise RunError(f"{origin} cannot be opened: {error.message}", error.hint) from error
        except KeyError as error:
            raise CheckpointError(f"{origin} is not a gmmc model: its header lacks {error}") from error
        except ValidationError as error:
            wrong, said = error.errors()[0], metadata[error.title]
            raise CheckpointError(
                f"{origin} is not a gmmc model: {error.title} of its header is {quoted(said)} ({plainly(wrong['msg'])})"
            ) from error
        except RecipeError as error:
            raise CheckpointError(f"{origin} is not a gmmc model: {error.message}") from error
        return cls(recipe, **values)

    def build(self) -> Classifier:
        """An untrained model of this card, on the cpu."""
        model = self.recipe.model.build(len(self.class_names), self.image_shape[0])
        model.gamma2 = self.gamma2
        return model


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe with the last part alone of each path: what is published says nothing of the machine it comes from."""
    source: Any = recipe.data.source  # a dataclass, which mypy cannot read in a protocol
    names = {key: Path(value).name for key, value in vars(source).items() if isinstance(value, (str, Path)) and _is_path(key, value)}
    data = replace(recipe.data, source=replace(source, **names)) if names else recipe.data
    return replace(recipe, data=data, init=replace(recipe.init, from_=Path(recipe.init.from_).name))


def _is_path(key: str, value: str | Path) -> bool:
    """Whether a value of a source is a path, of an installed package's source too."""
    return key in ("path", "root") or Path(value).is_absolute() or str(value).startswith("~")


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
            _check_size(card, {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}, path)  # noqa: SIM118 - not a dict
            model = card.build()
            model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
    except (OSError, safetensors.SafetensorError, RuntimeError, ValueError) as error:  # the last two: a model that its card cannot have
        raise CheckpointError(f"{path} cannot be read as a model ({error})") from error
    return card.recipe.compute.place(model, torch.device("cpu")).eval(), card


def _check_size(card: ModelCard, shapes: dict[str, tuple[int, ...]], path: str | Path) -> None:
    """Raise CheckpointError where the file has other tensors than the backbone of its card, before that takes any memory.

    Of a package's backbone that cannot be built on torch's meta device nothing is known until it is built.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            expected = card.recipe.model.backbone.build(card.image_shape[0]).state_dict()
    except (NotImplementedError, RuntimeError):
        return
    for name, tensor in expected.items():
        if (found := shapes.get(f"backbone.{name}")) != tuple(tensor.shape):
            raise CheckpointError(
                f"{path} cannot be read as a model: backbone.{name} has shape {found}, its card says {tuple(tensor.shape)}"
            )
