"""``gmmc attack``: fgsm, pgd, apgd, square, cw, audit."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gmmcli.cli.options import Best, Data, Device, Json, N, Out, Quiet, RunName, RunsDir, Seed, SplitOption, check_grid, note, opened, show
from gmmcli.errors import RecipeError

app = typer.Typer(no_args_is_help=True, help="Attack a trained run, and tell how far the figures can be believed.")
Eps = Annotated[
    list[str] | None,
    typer.Option(
        "--eps", metavar="EPS", help="Radius in pixels of [0, 1]: 8/255, 0.031, or a comma list. Repeatable. Default: 8/255, for l2 0.5."
    ),
]
Loss = Annotated[str, typer.Option("--loss", help="ce (prone to masking), ce-scaled, margin, dlr, dlr-targeted, mmc or mmc-targeted.")]
Norm = Annotated[Literal["linf", "l2"], typer.Option("--norm", help="Norm of the perturbation.")]
Restarts = Annotated[int, typer.Option("--restarts", min=1, help="Random starts; an image counts as broken if one breaks it.")]
Scale = Annotated[float, typer.Option("--scale", help="Attack the logits divided by this.")]
Float64 = Annotated[bool, typer.Option("--float64", help="Compute in float64, where gradients vanish later.")]
FewImages = Annotated[
    int, typer.Option("--n", min=2, help="Maximum number of images, drawn at random: each takes thousands of forward passes.")
]
Save = Annotated[Path | None, typer.Option("--save", help="Write the adversarial images here, an .npz.", show_default=False)]


def radii(texts: list[str] | None, norm: str) -> list[float]:
    """Read radii as they stand on the command line; RecipeError for what is none."""
    found = []
    for text in ",".join(texts or ["8/255" if norm == "linf" else "0.5"]).split(","):
        numerator, slash, denominator = text.strip().partition("/")
        try:
            eps = float(numerator) / (float(denominator) if slash else 1.0)
        except (ValueError, ZeroDivisionError) as error:
            raise RecipeError(f"--eps {text!r} is no number", "write 8/255, 0.031 or 4/255,8/255") from error
        if not 0 <= eps < float("inf"):
            raise RecipeError(f"--eps {text} is not a radius", "give 0 or more")
        if norm == "linf" and eps > 1:
            raise RecipeError(
                f"--eps {text} is more than the whole range of a pixel, which is 1",
                f"did you mean {text}/255?" if not slash else "give at most 255/255",
            )
        found.append(eps)
    return found


def _bounded(
    kind: Any, eps: list[str] | None, norm: Literal["linf", "l2"], json: bool, options: dict[str, Any], where: dict[str, Any], **attack: Any
) -> None:
    """What the four bounded attacks share: open, attack, answer."""
    chosen = radii(eps, norm)
    if options["scale"] <= 0:
        raise RecipeError(f"--scale {options['scale']} must be positive")
    subject = opened(**where)
    from gmmcli.attacks.attack import Attack
    from gmmcli.attacks.audit import said
    from gmmcli.evaluate.robustness import bounded

    note("eps " + ", ".join(f"{said(radius)} = {radius:.4f}" for radius in chosen) + f" in pixels of [0, 1], {norm}", where["quiet"])
    show(bounded(subject, Attack(kind, norm=norm, seed=where["seed"], **attack), chosen, quiet=where["quiet"], **options), json)


@app.command("fgsm", epilog="Example:\n\ngmmc attack fgsm --eps 8/255")
def fgsm_command(
    eps: Eps = None,
    loss: Loss = "ce",
    scale: Scale = 1.0,
    float64: Float64 = False,
    save: Save = None,
    n: N = None,
    seed: Seed = 1,
    data: Data = None,
    split: SplitOption = "test",
    best: Best = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One signed gradient step: the weakest attack, for comparison."""
    where = {
        "run": run,
        "runs_dir": runs_dir,
        "device": device,
        "quiet": quiet,
        "best": best,
        "data": data,
        "split": split,
        "n": n,
        "seed": seed,
    }
    _bounded("fgsm", eps, "linf", json, {"float64": float64, "scale": scale, "save": save}, where, loss=loss, steps=1)


@app.command(
    "pgd", epilog="Examples:\n\ngmmc attack pgd --eps 8/255\n\ngmmc attack pgd --eps 4/255,8/255,16/255 --loss margin --restarts 5"
)
def pgd_command(
    eps: Eps = None,
    loss: Loss = "ce",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Gradient steps.")] = 40,
    step_size: Annotated[
        float | None, typer.Option("--step-size", help="A step, as a share of eps. Default: 2.5 / steps.", show_default=False)
    ] = None,
    restarts: Restarts = 1,
    norm: Norm = "linf",
    scale: Scale = 1.0,
    float64: Float64 = False,
    save: Save = None,
    n: N = None,
    seed: Seed = 1,
    data: Data = None,
    split: SplitOption = "test",
    best: Best = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Projected gradient steps from a random start; with --loss ce the paper's attack, which the audit shows to be masked."""
    if step_size is not None and step_size <= 0:
        raise RecipeError(f"--step-size {step_size} must be positive", "it is a share of eps; 0.25 is a quarter of the radius")
    where = {
        "run": run,
        "runs_dir": runs_dir,
        "device": device,
        "quiet": quiet,
        "best": best,
        "data": data,
        "split": split,
        "n": n,
        "seed": seed,
    }
    options = {"float64": float64, "scale": scale, "save": save}
    _bounded("pgd", eps, norm, json, options, where, loss=loss, steps=steps, step_size=step_size, restarts=restarts)


@app.command("apgd", epilog="Example:\n\ngmmc attack apgd --eps 8/255 --loss dlr-targeted")
def apgd_command(
    eps: Eps = None,
    loss: Loss = "dlr",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Gradient steps.")] = 100,
    restarts: Restarts = 1,
    norm: Norm = "linf",
    scale: Scale = 1.0,
    float64: Float64 = False,
    save: Save = None,
    n: N = None,
    seed: Seed = 1,
    data: Data = None,
    split: SplitOption = "test",
    best: Best = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """AutoAttack's gradient attack, which finds its step size by itself (Croce and Hein 2020)."""
    where = {
        "run": run,
        "runs_dir": runs_dir,
        "device": device,
        "quiet": quiet,
        "best": best,
        "data": data,
        "split": split,
        "n": n,
        "seed": seed,
    }
    _bounded("apgd", eps, norm, json, {"float64": float64, "scale": scale, "save": save}, where, loss=loss, steps=steps, restarts=restarts)


@app.command("square", epilog="Example:\n\ngmmc attack square --eps 8/255 --queries 5000")
def square_command(
    eps: Eps = None,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Forward passes per image.")] = 5000,
    restarts: Restarts = 1,
    norm: Norm = "linf",
    scale: Scale = 1.0,
    float64: Float64 = False,
    save: Save = None,
    n: N = None,
    seed: Seed = 1,
    data: Data = None,
    split: SplitOption = "test",
    best: Best = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A black-box attack without gradients, on the margin (Andriushchenko et al. 2020): blind to masking."""
    where = {
        "run": run,
        "runs_dir": runs_dir,
        "device": device,
        "quiet": quiet,
        "best": best,
        "data": data,
        "split": split,
        "n": n,
        "seed": seed,
    }
    options = {"float64": float64, "scale": scale, "save": save}
    _bounded("square", eps, norm, json, options, where, loss="margin", steps=queries, restarts=restarts)


@app.command("cw", epilog="Examples:\n\ngmmc attack cw\n\ngmmc attack cw --aim least-likely --steps 1000 --n 100")
def cw_command(
    aim: Annotated[
        Literal["untargeted", "next", "least-likely"], typer.Option("--aim", help="Any wrong class, the next one, or the least likely one.")
    ] = "untargeted",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Adam's steps for each c.")] = 100,
    searches: Annotated[int, typer.Option("--searches", min=1, help="Values of c, by binary search for each image.")] = 9,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-6, help="Adam's.")] = 0.01,
    float64: Float64 = False,
    save: Save = None,
    n: FewImages = 500,
    seed: Seed = 1,
    out: Out = None,
    data: Data = None,
    split: SplitOption = "test",
    best: Best = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the smallest L2 change that deceives (Carlini and Wagner 2017): success rate, mean and median norm, and a picture."""
    check_grid(out)
    subject = opened(run, runs_dir, device, quiet, best=best, data=data, split=split, n=n, seed=seed)
    from gmmcli.attacks.carlini import CarliniWagner
    from gmmcli.evaluate.robustness import carlini

    show(carlini(subject, CarliniWagner(aim, steps, searches, learning_rate), float64=float64, save=save, out=out, quiet=quiet), json)


@app.command("audit", epilog="Examples:\n\ngmmc attack audit\n\ngmmc attack audit --n 500 --transfer digits_dis")
def audit_command(
    transfer: Annotated[
        str | None, typer.Option("--transfer", metavar="RUN", help="Also try what deceives this other run.", show_default=False)
    ] = None,
    n: FewImages = 500,
    seed: Seed = 1,
    out: Out = None,
    data: Data = None,
    split: SplitOption = "test",
    best: Best = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try everything: the worst case of each image over all attacks, at eps from 1/255 to 1, and named reasons to distrust.

    Ends with one sentence: the robust accuracy to believe, and by how much PGD with cross-entropy overstated it.

    An interrupted audit is resumed where it stopped.
    """
    asked = {"best": best, "data": data, "split": split, "n": n, "seed": seed}
    subject = opened(run, runs_dir, device, quiet, **asked)
    other = opened(transfer, runs_dir, device, quiet, **asked) if transfer else None
    if other and other.card.image_shape != subject.card.image_shape:
        raise RecipeError(f"run {other.run.id} takes images of another size than {subject.run.id}", "transfer from a run on the same data")
    from gmmcli.evaluate.robustness import audit

    show(audit(subject, transfer=other, out=out, quiet=quiet), json)
