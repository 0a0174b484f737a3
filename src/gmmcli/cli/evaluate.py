"""``gmmc eval``: accuracy, calibrate, ood, generate, all."""

from typing import Annotated

import typer

from gmmcli.cli import completion, generate
from gmmcli.cli.options import Images, OfRun, Out, Refining, SomeImages, show_each, with_options
from gmmcli.cli.verbs import Verbs

app = Verbs(help="Measure a trained run: accuracy, calibration, out-of-distribution detection, generation.")
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="NAME",
        help="Compare with interp, noise (uniform and gaussian), a dataset's name, celeba, folder:PATH or npz:PATH. Repeatable. "
        "Default: interp, noise and those of the usual datasets that are on disk.",
        show_default=False,
        autocompletion=completion.among("sources", *completion.SETS),
    ),
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        metavar="NAME",
        help="Name of a score, or all. Repeatable. Default: all that need no pass over the training images.",
        show_default=False,
        autocompletion=completion.among("scores", *completion.SCORES),
    ),
]


@app.command(
    "accuracy", epilog="Examples:\n\ngmmc eval accuracy\n\ngmmc eval accuracy --split validation --json\n\ngmmc eval accuracy --refine 10"
)
@with_options
def accuracy_command(out: Out = None, *, refining: Refining, images: Images, of_run: OfRun) -> None:
    """Measure accuracy, NLL and Brier score, overall and by class; draws the confusion matrix."""
    subject = refining.of(of_run.open(images))
    from gmmcli.evaluate.classification import accuracy

    of_run.show(accuracy(subject, out=out, quiet=of_run.quiet))


@app.command("calibrate", epilog="Examples:\n\ngmmc eval calibrate\n\ngmmc eval calibrate --out reliability.png")
@with_options
def calibrate_command(out: Out = None, *, images: Images, of_run: OfRun) -> None:
    """Measure calibration at three scales: unit variance, the estimated gamma^2, and a temperature fitted on the validation split.

    Draws the reliability diagram, and warns where the softmax is saturated.
    """
    subject = of_run.open(images)
    from gmmcli.evaluate.classification import calibrate

    of_run.show(calibrate(subject, out=out, quiet=of_run.quiet))


@app.command(
    "ood",
    epilog="Examples:\n\ngmmc eval ood\n\ngmmc eval ood --against interp --against npz:svhn.npz --against folder:faces --score log_px",
)
@with_options
def ood_command(
    sets: Sets = None,
    scores: Scores = None,
    out: Out = None,
    *,
    images: SomeImages,
    of_run: OfRun,
) -> None:
    """Measure how well scores tell the run's test images from others: AUROC, AUPR, FPR at 95% TPR, with intervals and histograms.

    High scores mean in-distribution. Scores that are fitted on the training images (one more pass) are measured on request: --score knn.

    Other images are brought to the run's size and channels.

    By default nothing is downloaded. A set that --against names is downloaded if need be; if it cannot be had, that is an error (exit 3).
    """
    from gmmcli.metrics.scores import score_names

    score_names(scores)  # an unknown one is refused before anything is loaded
    subject = of_run.open(images)
    from gmmcli.evaluate.detection import ood

    of_run.show(ood(subject, sets, scores, out=out, quiet=of_run.quiet))


app.command("generate", epilog=generate.EPILOG)(generate.generate_command)


@app.command("all", epilog="Example:\n\ngmmc eval all --json")
@with_options
def all_command(
    sets: Sets = None,
    *,
    images: SomeImages,
    of_run: OfRun,
) -> None:
    """Measure everything in one pass over the test images: accuracy, calibration, out-of-distribution, and the replay buffer's images.

    Generation is measured in the best features at hand: Inception's, EfficientNet-Lite0's, pixels; not at all without a buffer.
    """
    subject = of_run.open(images)
    from gmmcli.evaluate.whole import whole

    every, parts = whole(subject, sets, quiet=of_run.quiet)
    for part in parts:
        if part.result["command"] == "eval generate":
            generate.note_best(part.result["protocol"]["space"], of_run.quiet)
    if of_run.json:
        of_run.show(every)
        return
    show_each(parts)
