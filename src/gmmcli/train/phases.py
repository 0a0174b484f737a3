"""Which optimiser takes a step: a function of the step alone, so that a resume needs no other state."""

from dataclasses import dataclass
from itertools import accumulate

from gmmcli.core.protocols import Optim
from gmmcli.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """Steps with one optimiser: a stage with its own, or consecutive stages that share the recipe's."""

    optim: Optim
    begin: int
    """Its first step, where the optimiser's moments and the average of weights are reset."""
    rate_from: int
    """Where its learning rate's schedule starts: at ``begin`` for a stage's own, at 0 for the recipe's."""
    rate_steps: int
    """The number of steps of that schedule."""
    steps_per_epoch: int

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of the training."""
        return self.optim.rate(step - self.rate_from, self.steps_per_epoch, self.rate_steps)


def phases(recipe: Recipe, steps_per_epoch: int) -> list[Phase]:
    """Return the phases of a training, in order."""
    lengths = [stage.epochs * steps_per_epoch for stage in recipe.stages]
    begins = accumulate(lengths, initial=0)
    found: list[Phase] = []
    for before, stage, begin, length in zip((None, *recipe.stages), recipe.stages, begins, lengths, strict=False):
        if stage.optim is not None:
            found.append(Phase(stage.optim, begin, begin, length, steps_per_epoch))
        elif before is None or before.optim is not None:
            found.append(Phase(recipe.optim, begin, 0, sum(lengths), steps_per_epoch))
    return found
