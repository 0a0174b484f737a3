"""``gmmc tsne``."""

from typing import Annotated

import typer

from gmmcli.cli.options import Best, Data, Device, Json, N, Origin, Out, Quiet, RunNames, RunsDir, Seed, SplitOption, answer, opened, show
from gmmcli.errors import RecipeError

EPILOG = "Examples:\n\ngmmc tsne\n\ngmmc tsne --run digits_dis --run digits_gen --per-class 20 --out fig1.png"


def tsne_command(
    runs: RunNames = None,
    per_class: Annotated[
        int, typer.Option("--per-class", min=0, help="Number of samples per class to draw from each run, shown as crosses.")
    ] = 0,
    origin: Origin = "buffer",
    features: Annotated[
        str | None,
        typer.Option(
            "--features", metavar="SPACE", help="efficientnet-lite0, inception or pixels. Default: the run's own.", show_default=False
        ),
    ] = None,
    data: Data = None,
    split: SplitOption = "test",
    n: N = 2000,
    seed: Seed = 1,
    out: Out = None,
    best: Best = False,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw the features in the plane, by PCA and t-SNE, coloured by class; saves the coordinates and says how far to trust them."""
    names: list[str | None] = [*runs] if runs else [None]
    subjects = [opened(name, runs_dir, device, quiet, best=best, data=data, split=split, n=n, seed=seed) for name in names]
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
    settings = Embedding(space, Draw(origin, seed=seed), per_class, seed)
    measured = tsne(subjects, settings, out=out, quiet=quiet)
    if json:
        first = measured[0].result
        answer(first if len(measured) == 1 else first | {"runs": [one.result for one in measured]})
        return
    for one in measured:
        show(one, json=False)
