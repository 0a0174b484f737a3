"""What a study consists of: models x seeds x evaluations, as its TOML file says (docs/study.md)."""

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
    """One ``[[models]]`` table: a recipe under overrides, by the name the report knows it by."""

    recipe: str
    name: str = ""
    """The recipe's own by default."""
    set: tuple[str, ...] = ()
    """``key=value`` overrides, as of ``gmmc train --set``."""
    vary: dict[str, list[Any]] = field(default_factory=dict)
    """Keys and the values each takes: one model for every combination, named after them."""
    seeds: tuple[Natural, ...] = ()
    """Other seeds than the study's."""
    evaluations: tuple[str, ...] = ()
    """Evaluations of this model beyond the study's, as gmmc's own words: ``"eval ood --against interp"``."""
    once: tuple[str, ...] = ()
    """Evaluations of its first seed alone."""

    def __post_init__(self) -> None:
        if empty := [key for key, values in self.vary.items() if not values]:
            raise ValueError(f"vary.{empty[0]} has no values")

    def variants(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the name and the overrides of every combination of ``vary``."""
        for values in product(*self.vary.values()):
            chosen = dict(zip(self.vary, values, strict=True))
            said = [f"{key.rpartition('.')[2]} {value}" for key, value in chosen.items()]
            overrides = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
            yield ", ".join([self.name or Path(self.recipe).stem, *said]), [*self.set, *overrides]


@dataclass(frozen=True)
class Training:
    """One training of a study, and the evaluations of its run."""

    model: str
    position: int
    """Of the model, in the study's order."""
    recipe: Recipe
    source: str
    """The recipe's file, or its name among those that are shipped."""
    overrides: tuple[str, ...]
    evaluations: tuple[tuple[str, ...], ...]
    """Words of gmmc commands."""


@dataclass(frozen=True)
class Study:
    """A study file."""

    name: str
    models: tuple[Entry, ...]
    about: str = ""
    """A sentence or two for the head of the report."""
    seeds: tuple[Natural, ...] = (1,)
    set: tuple[str, ...] = ()
    """Overrides of every model's recipe."""
    evaluations: tuple[str, ...] = ()
    """Evaluations of every run."""
    once: tuple[str, ...] = ()
    """Evaluations of the first seed of each model alone: those that take long."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name {self.name!r} becomes part of a folder's name: letters, digits, and . _ - only")
        if not self.models:
            raise ValueError("a study needs at least one [[models]] table")

    @classmethod
    def load(cls, name: str | Path, overrides: Sequence[str] = ()) -> tuple[Self, Path]:
        """Load a file, or a shipped study by its name; return it with its path.

        Args:
            name: which.
            overrides: ``key=value``, for every model's recipe, after the file's own.

        Raises:
            RecipeError: it is not a study, or one of its recipes is none.
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
        """Every training, seed by seed, so that a study stopped halfway has something of each model.

        Args:
            folder: where the study's file lies: a recipe may be a file beside it.

        Raises:
            RecipeError: an invalid recipe, or two models of one name or of one recipe.
        """
        found = list(self._all(folder))
        recipes: dict[Recipe, str] = {}
        for training in found:
            if (first := recipes.setdefault(training.recipe, training.model)) != training.model:
                raise RecipeError(f"models {first!r} and {training.model!r} of study {self.name} have the same recipe", "drop one")
        names = [(training.model, training.recipe.seed) for training in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RecipeError(f"study {self.name} has model {twice[0][0]!r} twice with seed {twice[0][1]}", "give one another name")
        return sorted(found, key=lambda training: training.recipe.seed)

    def _all(self, folder: Path) -> Iterator[Training]:
        position = 0
        for entry in self.models:
            beside = folder / entry.recipe
            source = str(beside) if beside.is_file() else entry.recipe
            seeds = entry.seeds or self.seeds
            for name, overrides in entry.variants():
                for seed in seeds:
                    own = (*self.set, *overrides, f"seed={seed}")
                    asked = (*self.evaluations, *entry.evaluations, *((*self.once, *entry.once) if seed == seeds[0] else ()))
                    yield Training(name, position, Recipe.load(source, own), source, own, tuple(map(_words, asked)))
                position += 1


def _words(evaluation: str) -> tuple[str, ...]:
    """The words of an evaluation, as a shell would read them."""
    try:
        return tuple(shlex.split(evaluation))
    except ValueError as error:
        raise RecipeError(f"evaluation `{evaluation}`: {error}") from error
