"""What may change in a recipe between a training and its resume."""

from gmmcli.errors import RecipeError
from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe

FREE = ("name", "log.", "guard.", "compute.", "data.source.path", "data.source.root", "init.")
"""Keys, or how they begin, that neither the weights nor the chains depend on, but for rounding."""
MOST_EPOCHS = 10_000  # that are compared


def _same_rates(kept: Recipe, now: Recipe) -> bool:
    """Whether every epoch of the shorter training has the learning rate that it has in the longer one."""
    optim = now.stages[-1].optim or now.optim
    lengths = [recipe.stages[-1].epochs if now.stages[-1].optim else recipe.epochs for recipe in (kept, now)]
    return all(optim.rate(epoch, 1, lengths[0]) == optim.rate(epoch, 1, lengths[1]) for epoch in range(min(*lengths, MOST_EPOCHS)))


def changes(kept: Recipe, now: Recipe) -> list[str]:
    """Compare the recipe that a checkpoint was trained by with the one that is to resume it.

    The last stage may end elsewhere where its learning rate does not depend on its length: with a cosine it would jump.

    Returns:
        What differs, a line for each key.

    Raises:
        RecipeError: a key differs that must not.
    """
    before, after = flatten(kept.document()), flatten(now.document())
    last = len(kept.stages) - 1
    movable = len(now.stages) == last + 1 and _same_rates(kept, now)
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
