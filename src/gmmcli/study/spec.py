"""The study file: models x seeds x evaluations (docs/studies.md)."""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Self

import tomli

from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe, find
from gmmcli.schema import build
from gmmcli.types import Natural


@dataclass(frozen=True)
class Entry:
    """One ``[[models]]`` table: a recipe with overrides, and its name in the report."""

    recipe: str
    name: str = ""
    """Default: the recipe's name."""
    set: tuple[str, ...] = ()
    """``key=value`` overrides, as for ``gmmc train --set``."""
    vary: dict[str, list[Any]] = field(default_factory=dict)
    """Keys and lists of values: one model for each combination, named after it."""
    seeds: tuple[Natural, ...] = ()
    """Seeds of this model instead of the study's."""
    evaluations: tuple[str, ...] = ()
    """Evaluations of this model in addition to the study's, as gmmc commands: ``"eval ood --against interp"``."""
    once: tuple[str, ...] = ()
    """Evaluations of its first seed only."""

    def __post_init__(self) -> None:
        if empty := [key for key, values in self.vary.items() if not values]:
            raise ValueError(f"vary.{empty[0]} has no values")

    def variants(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the name and the overrides of every combination of ``vary``."""
        for values in product(*self.vary.values()):
            combination = dict(zip(self.vary, values, strict=True))
            labels = [f"{key.rpartition('.')[2]} {value}" for key, value in combination.items()]
            overrides = [f"{key}={json.dumps(value)}" for key, value in combination.items()]
            yield ", ".join([self.name or Path(self.recipe).stem, *labels]), [*self.set, *overrides]


@dataclass(frozen=True)
class Training:
    """One training of a study, and the evaluations of its run."""

    model: str
    position: int
    """Index of the model in the study."""
    recipe: Recipe
    source: str
    """The recipe's file, or the name of a shipped recipe."""
    overrides: tuple[str, ...]
    evaluations: tuple[tuple[str, ...], ...]
    """Arguments of gmmc commands."""


@dataclass(frozen=True)
class Study:
    """A study file."""

    name: str
    models: tuple[Entry, ...]
    about: str = ""
    """An introduction for the report."""
    seeds: tuple[Natural, ...] = (1,)
    set: tuple[str, ...] = ()
    """Overrides of every model's recipe."""
    evaluations: tuple[str, ...] = ()
    """Evaluations of every run."""
    once: tuple[str, ...] = ()
    """Evaluations of the first seed of each model only: slow ones."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name {self.name!r} may contain only letters, digits, and . _ -: it becomes part of a directory's name")
        if not self.models:
            raise ValueError("a study needs at least one [[models]] table")

    @classmethod
    def load(cls, name: str | Path, overrides: Sequence[str] = ()) -> tuple[Self, Path]:
        """Load a study from a file, or a shipped one by name; return it with its path.

        Args:
            name: path of a TOML file, or name of a shipped study.
            overrides: ``key=value`` for every model's recipe, applied after those of the file.

        Raises:
            RecipeError: the file is not a valid study.
        """
        path = find(str(name), "studies")
        try:
            study: Self = build(cls, tomli.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
            raise RecipeError(f"{path} cannot be read as a study ({error})") from error
        except RecipeError as error:
            raise RecipeError(f"{error.message} ({path})", error.hint) from error
        entries = tuple(dataclasses.replace(entry, set=(*entry.set, *overrides)) for entry in study.models)
        return dataclasses.replace(study, models=entries), path

    def trainings(self, folder: Path) -> list[Training]:
        """Every training, seed by seed, so that a study stopped halfway has runs of each model.

        Args:
            folder: of the study's file; recipes may be files in the same folder.

        Raises:
            RecipeError: an invalid recipe, or two models of one name or of one recipe.
        """
        found = list(self._all(folder))
        recipes: dict[Recipe, str] = {}
        for training in found:
            if (first := recipes.setdefault(training.recipe, training.model)) != training.model:
                raise RecipeError(f"models {first!r} and {training.model!r} of study {self.name} have the same recipe", "remove one")
        names = [(training.model, training.recipe.seed) for training in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RecipeError(f"study {self.name} has model {twice[0][0]!r} twice with seed {twice[0][1]}", "rename one")
        return sorted(found, key=lambda training: training.recipe.seed)

    def _all(self, folder: Path) -> Iterator[Training]:
        position = 0
        for entry in self.models:
            local = folder / entry.recipe
            source = str(local) if local.is_file() else entry.recipe
            seeds = entry.seeds or self.seeds
            for name, overrides in entry.variants():
                for seed in seeds:
                    settings = (*self.set, *overrides, f"seed={seed}")
                    evaluations = (*self.evaluations, *entry.evaluations, *((*self.once, *entry.once) if seed == seeds[0] else ()))
                    yield Training(name, position, Recipe.load(source, settings), source, settings, tuple(map(_words, evaluations)))
                position += 1


def _words(evaluation: str) -> tuple[str, ...]:
    """Split an evaluation into words, as a shell would."""
    try:
        return tuple(shlex.split(evaluation))
    except ValueError as error:
        raise RecipeError(f"evaluation `{evaluation}`: {error}") from error
