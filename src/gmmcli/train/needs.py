"""What a training needs at least, told by its recipe and the shape of its images before anything of that size is made."""

import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from gmmcli.core.compute import total_memory
from gmmcli.core.cost import DAY, LONGEST, Cost, operations_a_second
from gmmcli.distributed import world
from gmmcli.errors import RecipeError
from gmmcli.recipe import Stage
from gmmcli.train.setup import Setup

COPIES = 4
"""Of the weights: themselves, their gradients, and what optimisers keep, which is two at most."""


@dataclass(frozen=True)
class Needs:
    """Lower bounds for one of a training's processes: bytes, and seconds at the speed of the device's matrix products."""

    memory: int
    disk: int
    step_seconds: tuple[float, ...]
    """One per stage."""
    seconds: float

    @classmethod
    def of(cls, setup: Setup) -> "Needs":
        """Work them out on torch's meta device; of a backbone that cannot be built there nothing is known, and nothing counted."""
        recipe, shape = setup.recipe, setup.dataset.shape
        share = world().share(recipe.data.batch_size)
        batch = share.stop - share.start
        cost = Cost.of(recipe.model.backbone, shape)
        weights = 4 * (cost.parameters + setup.dataset.n_classes * recipe.model.backbone.dim)
        buffer = 0
        if recipe.needs_chains:
            buffer = recipe.chains.buffer_size * prod(shape) * getattr(torch, recipe.chains.dtype).itemsize
        sampled = 1 + recipe.needs_chains
        kept = cost.kept // 2 if recipe.compute.precision == "bf16" else cost.kept
        speed = operations_a_second(setup.device, recipe.compute.precision)
        steps = tuple(_passes(setup, stage) * cost.operations * batch / speed for stage in recipe.stages)
        n_checkpoints = recipe.log.keep + 1 if recipe.log.checkpoint_every else 1
        return cls(
            memory=COPIES * weights + buffer // world().size + sampled * batch * kept,
            disk=n_checkpoints * (weights + buffer),
            step_seconds=steps,
            seconds=sum(stage.epochs * setup.loader.steps_per_epoch * step for stage, step in zip(recipe.stages, steps, strict=True)),
        )

    def check_memory(self, setup: Setup) -> None:
        """Raise RecipeError where this machine has less."""
        if self.memory > (memory := total_memory(setup.device)):
            raise RecipeError(
                f"{setup.recipe.name} needs at least {_size(self.memory)} of memory, and there are {_size(memory)}",
                "make data.batch_size, model.backbone.width or chains.buffer_size smaller, or try it all the same with --force",
            )

    def check(self, setup: Setup, folder: Path) -> None:
        """Raise RecipeError where they are beyond this machine, or a year.

        Args:
            setup: of the training.
            folder: where its run will be; it need not exist yet.
        """
        self.check_memory(setup)
        folder = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if self.disk > (disk := shutil.disk_usage(folder).free):
            raise RecipeError(
                f"{setup.recipe.name} needs at least {_size(self.disk)} for checkpoints, and {folder} has {_size(disk)} free",
                "choose another disk with --runs-dir, make log.keep or chains.buffer_size smaller, or try it all the same with --force",
            )
        if self.seconds > LONGEST:
            raise RecipeError(
                f"{setup.recipe.name} takes at least {self.seconds / DAY:,.0f} days on this {setup.device}",
                "train it on a GPU, or a smaller recipe (`gmmc recipes ls`), or start it all the same with --force",
            )


def _passes(setup: Setup, stage: Stage) -> int:
    """Forward passes of one image that a step's work on it amounts to: a gradient is two more, one of the image alone is one more."""
    optim = stage.optim or setup.recipe.optim
    update = 3 * (1 + stage.objective.clean_positive + stage.objective.needs_negatives) * (2 if optim.sam_rho else 1)
    return update + 2 * setup.recipe.chains.sampler.n_steps * stage.objective.needs_negatives


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
