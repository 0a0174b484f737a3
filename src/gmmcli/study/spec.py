"""The study file: models x seeds x evaluations (docs/studies.md)."""

import dataclasses
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Self

from gmmcli import toml
from gmmcli.errors import RecipeError, quoted
from gmmcli.recipe import Recipe, check_name, find
from gmmcli.schema import build
from gmmcli.storage import is_file
from gmmcli.types import Natural

MOST_TRAININGS, MOST_EVALUATIONS = 1000, 100
"""Of a study, and of a training: reading it takes seconds."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that would command a terminal; names and evaluations are shown on one."""


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

    @property
    def n_variants(self) -> int:
        """Number of combinations of ``vary``."""
        return prod(map(len, self.vary.values()))

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
        check_name(self.name)
        if not self.models:
            raise ValueError("a study needs at least one [[models]] table")
        if not self.seeds:
            raise ValueError("a study needs at least one seed")
        if (n := sum(entry.n_variants * len(entry.seeds or self.seeds) for entry in self.models)) > MOST_TRAININGS:
            raise ValueError(f"{n:,} trainings are more than a study's {MOST_TRAININGS:,}; divide it")
        asked = max(len((*self.evaluations, *self.once, *entry.evaluations, *entry.once)) for entry in self.models)
        if asked > MOST_EVALUATIONS:
            raise ValueError(f"{asked:,} evaluations of a training are more than a study's {MOST_EVALUATIONS}; divide it")

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
        document = toml.parse(toml.read(path), str(path))
        try:
            study: Self = build(cls, document)
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
        ((model, seed), n) = Counter((training.model, training.recipe.seed) for training in found).most_common(1)[0]
        if n > 1:
            raise RecipeError(f"study {self.name} has model {model!r} twice with seed {seed}", "rename one")
        return sorted(found, key=lambda training: training.recipe.seed)

    def _all(self, folder: Path) -> Iterator[Training]:
        position = 0
        for entry in self.models:
            local = folder / entry.recipe
            source = str(local) if is_file(local) else entry.recipe
            seeds = entry.seeds or self.seeds
            every = [_words(evaluation) for evaluation in (*self.evaluations, *entry.evaluations)]
            once = [_words(evaluation) for evaluation in (*self.once, *entry.once)]
            for name, overrides in entry.variants():
                if CONTROL.search(name):
                    raise RecipeError(f"model {quoted(name)} of study {self.name} has control characters in its name", "rename it")
                for seed in seeds:
                    settings = (*self.set, *overrides, f"seed={seed}")
                    evaluations = (*every, *(once if seed == seeds[0] else ()))
                    yield Training(name, position, Recipe.load(source, settings), source, settings, evaluations)
                position += 1


def _words(evaluation: str) -> tuple[str, ...]:
    """Split an evaluation into words, as a shell would."""
    try:
        words = tuple(shlex.split(evaluation))
    except ValueError as error:
        raise RecipeError(f"evaluation `{evaluation}`: {error}") from error
    if CONTROL.search("".join(words)):
        raise RecipeError(f"evaluation {quoted(evaluation)} has control characters", "leave them out")
    return words
