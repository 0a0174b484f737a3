"""``gmmc tsne``."""

from dataclasses import dataclass
from typing import Annotated

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Images, N, OfRuns, Origin, Out, answer, show_each, with_options
from gmmcli.errors import RecipeError

EPILOG = "Examples:\n\ngmmc tsne\n\ngmmc tsne --run digits_dis --run digits_gen --per-class 20 --out fig1.png"


@dataclass(frozen=True)
class ImagesOfAll(Images):
    """At most 2,000 images by default."""

    n: N = 2000


@with_options
def tsne_command(
    per_class: Annotated[
        int, typer.Option("--per-class", min=0, help="Number of samples per class to draw from each run, shown as crosses.")
    ] = 0,
    origin: Origin = "buffer",
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="SPACE",
            help="efficientnet-lite0, inception or pixels. Default: the run's own.",
            show_default=False,
            autocompletion=completion.among("", *completion.SPACES),
        ),
    ] = None,
    out: Out = None,
    *,
    images: ImagesOfAll,
    of_runs: OfRuns,
) -> None:
    """Draw the features in the plane, by PCA and t-SNE, coloured by class; saves the coordinates and says how far to trust them."""
    subjects = of_runs.open_each(images)
    if len({subject.card.class_names for subject in subjects}) > 1:
        raise RecipeError("these runs know different classes", "draw them one by one")
    from gmmcli.evaluate.samples import Draw
    from gmmcli.evaluate.tsne import Embedding, tsne
    from gmmcli.metrics.features.spaces import named_space

    space = named_space(features, device=subjects[0].device) if features else None
    if features and space is None:
        raise RecipeError(
            f"no feature space {features!r}", "give efficientnet-lite0, inception, pixels or best; a run's own are the default"
        )
    settings = Embedding(space, Draw(origin, seed=images.seed), per_class, images.seed)
    measured = tsne(subjects, settings, out=out, quiet=of_runs.quiet)
    if of_runs.json:
        first = measured[0].result
        answer(first if len(measured) == 1 else first | {"runs": [one.result for one in measured]})
        return
    show_each(measured)
