"""What may change in a recipe between a training and its resume."""

from gmmcli.errors import RecipeError
from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe
from gmmcli.train.phases import phases

FREE = ("name", "log.", "guard.", "compute.", "data.source.path", "data.source.root", "init.")
"""Keys, or how they begin, that neither the weights nor the chains depend on, but for rounding."""
COMPARED = 10_000  # steps, evenly spaced, whose learning rates are compared


def _same_rates(kept: Recipe, now: Recipe, steps_per_epoch: int) -> bool:
    """Whether every step of the shorter training has the learning rate that it has in the longer one."""
    schedules = [phases(recipe, steps_per_epoch) for recipe in (kept, now)]
    n_steps = min(kept.epochs, now.epochs) * steps_per_epoch

    def rates(step: int) -> set[float]:
        return {next(phase for phase in reversed(schedule) if phase.begin <= step).rate(step) for schedule in schedules}

    return all(len(rates(step)) == 1 for step in range(0, n_steps, max(1, n_steps // COMPARED)))


def changes(kept: Recipe, now: Recipe, steps_per_epoch: int) -> list[str]:
    """Compare the recipe that a checkpoint was trained by with the one that is to resume it.

    The last stage may end elsewhere where its learning rate does not depend on its length: with a cosine it would jump.

    Returns:
        What differs, a line for each key.

    Raises:
        RecipeError: a key differs that must not.
    """
    before, after = flatten(kept.document()), flatten(now.document())
    last = len(kept.stages) - 1
    movable = len(now.stages) == last + 1 and _same_rates(kept, now, steps_per_epoch)
    different = {key: (before.get(key), after.get(key)) for key in before | after if before.get(key) != after.get(key)}
    lines = [f"{key} is {new!r}, and was {old!r}" for key, (old, new) in different.items()]
    fixed = [key for key in different if not key.startswith(FREE) and not (movable and key == f"stages.{last}.epochs")]
    if fixed:
        old, new = different[fixed[0]]
        more = f", nor {', '.join(fixed[1:])}" if len(fixed) > 1 else ""
        raise RecipeError(
            f"`{fixed[0]}` cannot change in a resume: it was {old!r} and is {new!r} in recipe.toml now{more}",
            "change it back, or begin a new training, from these weights with init.from",
        )
    return lines
