"""Labels by the run's numbers: the classes of other data are matched by name."""

from dataclasses import replace

from gmmcli.data.dataset import Dataset
from gmmcli.errors import RecipeError
from gmmcli.hints import nearest
from gmmcli.model_card import ModelCard
from gmmcli.run import Run

FITTING = "evaluate a run trained on images like these; gmmc eval ood compares with images of any kind"
DIGITS = ("digits", "mnist", "svhn")
"""Sources whose classes are the numbers; of others numbers say that the classes have no names."""
NAMED = 10  # names in an error


def with_classes_of(run: Run, card: ModelCard, dataset: Dataset, kind: str | None) -> Dataset:
    """Number the labels as the run does, whose classes the dataset may have all or some of.

    Classes without names, 0 to K - 1, are taken to be numbered alike; those of the data may be fewer than the run's.

    Args:
        run: the run, by whose source's kind its names are names.
        card: the card of its model.
        dataset: the images.
        kind: of their source; None for the run's own data as it was, of which only the number of classes is compared.

    Raises:
        RecipeError: the run does not know one of the classes.
    """
    ours, theirs = card.class_names, dataset.class_names
    if len(theirs) > len(ours) or (kind is None and len(theirs) < len(ours)):
        raise RecipeError(f"{dataset.name} has {len(theirs)} classes, run {run.id} knows {len(ours)}", FITTING)
    if theirs == ours or kind is None:
        return dataset
    if _nameless(theirs, kind) or (_nameless(ours, run.recipe.data.source.kind) and len(theirs) == len(ours)):
        return replace(dataset, class_names=ours)
    if strangers := [name for name in theirs if name not in ours]:
        near = nearest(strangers[0], ours)
        raise RecipeError(
            f"{dataset.name} has the classes {_listed(theirs)}, run {run.id} knows {_listed(ours)}",
            f"{strangers[0]!r} is not among them: did you mean {near!r}?" if near else FITTING,
        )
    return dataset.numbered(ours)


def _nameless(names: tuple[str, ...], kind: str) -> bool:
    return kind not in DIGITS and names == tuple(map(str, range(len(names))))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
