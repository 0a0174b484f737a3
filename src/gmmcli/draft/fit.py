"""The largest of the recipes for some images that trains in the time there is, measured on this machine."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from gmmcli.core.compute import total_memory
from gmmcli.data.dataset import Dataset, Split
from gmmcli.data.survey import Survey
from gmmcli.draft.sizes import Document, Goal, Pattern, Start, patterns, side_of, sized
from gmmcli.draft.text import commented
from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.run import open_run
from gmmcli.train.needs import Needs
from gmmcli.train.plan import PATIENCE, duration, stage_seconds
from gmmcli.train.setup import Setup

SHORT = 0.5
"""Seconds of a step, at least; of those that take longer one alone is timed, and beyond ``PATIENCE`` none."""
LATE = 1.1
"""How many times as long a training may take as it should, since epochs are whole, before that is said."""
Measure = Callable[[Recipe, Survey, int], tuple[float, ...]]


@dataclass(frozen=True)
class Draft:
    """A recipe for some images, and how long its training takes here."""

    document: Document
    pattern: Pattern
    survey: Survey
    limit: float
    """Seconds that its training may take."""
    step_seconds: tuple[float, ...] = ()
    """One per stage."""
    whole: int | None = None
    """The steps that would suit, where there is no time for all."""

    @property
    def n_steps(self) -> tuple[int, ...]:
        """Training steps of each stage."""
        per_epoch = self.survey.n_train // self.document["data"]["batch_size"]
        return tuple(stage["epochs"] * per_epoch for stage in self.document["stages"])

    @property
    def seconds(self) -> float:
        """Of the whole training, without validation and saving."""
        return sum(n * seconds for n, seconds in zip(self.n_steps, self.step_seconds, strict=True))

    @cached_property
    def recipe(self) -> Recipe:
        """As a training reads it."""
        return Recipe.loads(commented(self.document, []), "the new recipe")

    @property
    def about(self) -> list[str]:
        """What it is for and how long it takes, in a few lines."""
        found, backbone = self.survey, self.document["model"]["backbone"]
        network = f"WRN-{backbone['depth']}-{backbone['width']}, " if backbone["kind"] == "wide-resnet" else ""
        side = self.document["data"]["source"].get("size", found.side)
        form = f"{side} x {side}, {'grey' if found.channels == 1 else 'colour'}"
        return [
            f"{found.n_classes} classes, {found.n_train:,} images to train on, {form}.",
            f"{network}settings of the shipped recipe {self.pattern.name}.",
            f"{sum(self.n_steps):,} steps, about {duration(self.seconds)} on {_machine()}; validation and saving come on top.",
            *self._short(),
        ]

    def _short(self) -> list[str]:
        """What is short in the time there is."""
        lines = []
        if self.whole:
            lines.append(
                f"That is {sum(self.n_steps) / self.whole:.0%} of the steps that suit these settings: give it more time if you can."
            )
        if self.seconds > LATE * self.limit:
            lines.append(f"It takes longer than the {duration(self.limit)} there are: a stage has one epoch at least.")
        return lines

    @property
    def text(self) -> str:
        """The file."""
        return commented(self.document, ["Made by `gmmc recipes new`; docs/recipes.md explains every key.", *self.about])


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    n = torch.get_num_threads()
    return f"a cpu with {n} thread{'s' if n > 1 else ''}"


def measured(recipe: Recipe, survey: Survey, side: int) -> tuple[float, ...]:
    """Time a step of each stage on random images; of one that takes long, work out the least that it takes.

    Raises:
        RecipeError: the machine has no memory for it, or the weights that the recipe starts from do not fit.
    """
    n = max(recipe.data.batch_size, 2 * survey.n_classes)
    images = torch.randint(256, (n, survey.channels, side, side), generator=stream("cpu", 0, "images"), dtype=torch.uint8)
    split = Split(images, torch.arange(n) % survey.n_classes)
    setup = Setup.prepare(recipe, Dataset("images", survey.class_names, split, split, split))
    needs, memory = Needs.of(setup), total_memory(setup.device)
    if needs.memory > memory:
        raise RecipeError(
            f"to train on images of {side} x {side} takes {needs.memory / 2**30:,.1f} GiB of memory, and there are {memory / 2**30:,.1f}",
            "choose a smaller --size",
        )
    small = replace(setup.recipe, chains=replace(setup.recipe.chains, buffer_size=survey.n_classes))  # its size changes no step
    setup = replace(setup, recipe=small)
    return tuple(stage_seconds(setup, setup.initial_state(), needs.step_seconds, SHORT, PATIENCE))


def fitted(
    name: str,
    survey: Survey,
    goal: Goal,
    seconds: float,
    side: int | None = None,
    origin: str | None = None,
    measure: Measure = measured,
) -> Draft:
    """Choose the largest recipe whose training takes at most so many seconds; of the smallest, as many of its steps as they allow.

    Args:
        name: of the recipe.
        survey: of the images.
        goal: what the model is for.
        seconds: that training may take.
        side: pixels of an image; by default what suits.
        origin: the run whose model to start from.
        measure: the seconds of a step of each stage.

    Raises:
        RecipeError: the images have another size than ``side``, the run's model does not fit them, or there is no memory.
    """
    start = None
    if origin is not None:
        run = open_run(origin)
        start = Start(str(run.path), run.card())
        survey, side = _alike(survey, side, start)
    side = side_of(survey, side)
    chosen: Draft | None = None
    for pattern in patterns(survey, goal, side):
        draft = Draft(sized(pattern, survey, goal, side, start=start) | {"name": name}, pattern, survey, seconds)
        try:
            draft = replace(draft, step_seconds=measure(draft.recipe, survey, side))
        except RecipeError:
            if chosen is None:
                raise
            break
        if draft.seconds > seconds:
            break
        chosen = draft
    if chosen:
        return chosen
    document = sized(draft.pattern, survey, goal, side, seconds / draft.seconds, start) | {"name": name}
    return replace(draft, document=document, whole=sum(draft.n_steps))


def _alike(survey: Survey, side: int | None, start: Start) -> tuple[Survey, int]:
    """The survey and the side where images are made as those that a model knows; RecipeError where they cannot be."""
    channels, theirs, _ = start.card.image_shape
    if len(start.card.class_names) != survey.n_classes:
        raise RecipeError(
            f"--init-from {start.origin}: that model has {len(start.card.class_names)} classes, and these images have {survey.n_classes}",
            "start from another run, or leave it out",
        )
    if side not in (None, theirs) or (not survey.resized and (survey.channels, survey.side) != (channels, theirs)):
        raise RecipeError(
            f"--init-from {start.origin}: that model has images of {theirs} x {theirs} with {channels} channels, and these are others",
            "leave out --size, or start from another run",
        )
    return replace(survey, channels=channels), theirs
