"""A shipped recipe whose settings were tuned, with other sizes: those of the user's images."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gmmcli import toml
from gmmcli.data.survey import Survey
from gmmcli.errors import RecipeError
from gmmcli.model_card import ModelCard
from gmmcli.recipe import shipped

Goal = Literal["classify", "generate", "both"]
Document = dict[str, Any]
ICON, NO_STRIDE, SIDE = 12, 24, 32
"""Pixels: up to the first an image is an icon; below the second the network does not halve it at once; those of the third were what the
recipes for photographs were tuned on, and larger ones are made so small unless another size is asked for."""
BATCHES, STEPS_AN_EPOCH, SMALLEST = (64, 32), 16, 16
"""A batch is the largest of these, or the shipped recipe's, that gives an epoch so many steps, else the smallest, or all images where they
are fewer."""
EPOCHS, LEAST_STEPS = 60, 600
"""Of a stage at most, however few the images are, unless that would be fewer steps."""
SLOTS, VISITS = 100, 4
"""Places in the buffer for each class at least, and how often a training comes to each of those beyond."""
FLOATS, COMPONENTS = 2**28, 2**30
"""Bytes: of a buffer of floats at most, and of the Gaussians that chains start from."""
SAMPLES = 200
"""Samples of a validation that looks for the best ones, all classes together."""


@dataclass(frozen=True)
class Pattern:
    """A shipped recipe, and what it was tuned on."""

    name: str
    side: int
    """Pixels of the images."""
    steps: tuple[int, ...]
    """Training steps of each stage."""
    least: int = 0
    """The fewest images that its network is chosen for."""

    def document(self) -> Document:
        """Its file as plain tables."""
        return toml.parse(toml.read(shipped()[self.name]), self.name)


ICONS: dict[Goal, tuple[Pattern, ...]] = {
    "classify": (Pattern("digits_dis", 8, (1140,)),),
    "generate": (Pattern("digits_gen", 8, (950,)),),
    "both": (Pattern("digits_joint", 8, (285, 665)),),
}
SKETCHES: dict[Goal, tuple[Pattern, ...]] = {
    "classify": (Pattern("mnist_dis", 28, (3380,)),),
    "generate": (Pattern("mnist_gen", 28, (3380,)),),
    "both": (Pattern("mnist_joint", 28, (845, 2535)),),
}
"""For grey images of less than ``SIDE`` pixels."""
JOINT = (
    Pattern("folder_joint", SIDE, (2110, 660)),
    Pattern("cifar10_small_joint", SIDE, (12_650, 2810), 5000),
    Pattern("cifar10_joint_fast", SIDE, (14_040, 4210), 20_000),
)
PHOTOGRAPHS: dict[Goal, tuple[Pattern, ...]] = {
    "classify": (Pattern("folder_dis", SIDE, (2110,)), Pattern("cifar10_small_dis", SIDE, (12_650,), 5000)),
    "generate": JOINT,  # after a stage that classifies, samples are better and come sooner than without (docs/training.md)
    "both": JOINT,
}


def patterns(survey: Survey, goal: Goal, side: int) -> tuple[Pattern, ...]:
    """The recipes that suit these images at this size, from small to large."""
    if side <= ICON:
        return ICONS[goal]
    if survey.channels == 1 and side < SIDE:
        return SKETCHES[goal]
    return tuple(pattern for pattern in PHOTOGRAPHS[goal] if survey.n_train >= pattern.least)


@dataclass(frozen=True)
class Start:
    """The model to start from: where it is, and its card."""

    origin: str
    card: ModelCard


def sized(pattern: Pattern, survey: Survey, goal: Goal, side: int, share: float = 1.0, start: Start | None = None) -> Document:
    """Return the pattern's tables with sizes that fit the images.

    Args:
        pattern: the shipped recipe.
        survey: of the images.
        goal: what the model is for.
        side: pixels of an image.
        share: of the pattern's training steps to take.
        start: whose model and weights to take. Where it knows these very classes, a stage that classifies before one that generates is
            left out.
    """
    document = pattern.document()
    batch = batch_size(survey.n_train, document["data"]["batch_size"])
    stages, lengths = document["stages"], [*pattern.steps]
    if start:
        document |= {"init": {"from": start.origin}, "model": start.card.recipe.document()["model"]}
        if start.card.class_names == survey.class_names:
            del stages[:-1], lengths[:-1]
    else:
        _size_backbone(document["model"]["backbone"], survey, side)
    data = document["data"] | {"source": _source(survey, side), "batch_size": batch}
    if "crop_padding" in data:
        data["crop_padding"] = max(1, round(data["crop_padding"] * side / pattern.side))
    if survey.characters:
        data.pop("flip", None)
    document["data"] = data
    per_epoch = survey.n_train // batch
    for i, stage in enumerate(stages):
        lengths[i] = _lengthen(stage, lengths[i], per_epoch, share)
    for optim, steps in _optims(document, lengths):
        optim["warmup_steps"] = min(optim["warmup_steps"], steps // 8)
    if "chains" in document:
        _size_chains(document["chains"], survey, side, side / pattern.side, lengths[-1] * batch)
        document["guard"] = {"on_divergence": "rollback"}
    document["log"] = _log(sum(lengths), lengths[-1], survey.n_classes, goal, "chains" in document)
    return document


def side_of(survey: Survey, asked: int | None) -> int:
    """Return the side of the images to train on: what is asked for, else that of the images, of a folder's at most ``SIDE``.

    Raises:
        RecipeError: another than that of the images is asked for, and the source does not resize them.
    """
    if survey.resized:
        return asked or max(8, min(survey.side, SIDE))
    if asked not in (None, survey.side):
        raise RecipeError(f"--size {asked}: these images are {survey.side} x {survey.side}", "leave it out: only a folder's are resized")
    return survey.side


def batch_size(n_train: int, tuned: int) -> int:
    """Return the images of a step, which the shipped recipe has ``tuned`` of."""
    most = next((batch for batch in sorted({tuned, *BATCHES}, reverse=True) if n_train >= STEPS_AN_EPOCH * batch), SMALLEST)
    return min(most, n_train)


def _source(survey: Survey, side: int) -> Document:
    table: Any = survey.source
    resized = {"size": side, "channels": survey.channels} if survey.resized else {}
    return {key: value for key, value in dataclasses.asdict(table).items() if value is not None} | resized


def _size_backbone(backbone: Document, survey: Survey, side: int) -> None:
    backbone["width"] = max(backbone["width"], -(-(survey.n_classes - 1) // 64))  # the means of K classes need K - 1 features
    if side < NO_STRIDE:
        backbone.pop("stem_stride", None)


def _lengthen(stage: Document, steps: int, per_epoch: int, share: float) -> int:
    """Give a stage the epochs that amount to these steps; return the steps they are."""
    epochs = min(round(steps / per_epoch), max(EPOCHS, -(-LEAST_STEPS // per_epoch)))
    epochs = max(1, round(share * epochs))
    if ramp := stage.get("ramp_epochs"):
        stage["ramp_epochs"] = min(epochs, max(1, round(ramp * epochs / stage["epochs"])))
    stage["epochs"] = epochs
    return epochs * per_epoch


def _optims(document: Document, lengths: list[int]) -> Iterator[tuple[Document, int]]:
    """Each optimiser's table, and the training steps that it takes."""
    if "optim" in document:
        yield document["optim"], sum(lengths)
    yield from ((stage["optim"], steps) for stage, steps in zip(document["stages"], lengths, strict=True) if "optim" in stage)


def _size_chains(chains: Document, survey: Survey, side: int, longer: float, n_visits: int) -> None:
    n_classes, pixels = survey.n_classes, survey.channels * side * side
    slots = max(SLOTS, min(chains["buffer_size"], n_visits // VISITS) // n_classes)
    chains["buffer_size"] = slots * n_classes
    if 4 * slots * n_classes * pixels > FLOATS:
        chains["dtype"] = "uint8"
    while chains["start"]["rank"] > 1 and 4 * n_classes * chains["start"]["rank"] * pixels > COMPONENTS:
        chains["start"]["rank"] //= 2
    chains["sampler"]["step_size"] = round(chains["sampler"]["step_size"] * longer, 3)  # of twice the side, twice as long a vector


def _log(total: int, last: int, n_classes: int, goal: Goal, has_chains: bool) -> Document:
    """The ``[log]`` table of a training of so many steps, so many of them in the last stage."""
    often = _round(total / 10)
    table = {
        "every": min(100, _round(total / 40)),
        "preview_every": often if has_chains else 0,
        "validate_every": often,
        "checkpoint_every": often,
        "keep": 2,
    }
    if goal != "generate":
        return table
    return table | {"validate_every": _round(last / 4), "validate_samples": max(1, SAMPLES // n_classes), "best": "samples"}


def _round(n: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... up to ``n``; 1 at least."""
    power = 10 ** max(0, math.floor(math.log10(max(1.0, n))))
    return int(power * max(digit for digit in (1, 2, 5) if digit * power <= max(1.0, n)))
