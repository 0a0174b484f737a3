"""``gmmc attack``: fgsm, pgd, apgd, square, those of installed packages, cw, audit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import GridOut, Images, OfRun, Out, Refining, check_out, note, with_options
from gmmcli.cli.verbs import Group, Verbs
from gmmcli.errors import RecipeError
from gmmcli.named import radii
from gmmcli.registry import installed


class Attacks(Group):
    """The commands below, and one for each attack that an installed package adds: named here, imported when it is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        own = super().list_commands(ctx)
        return list(dict.fromkeys([*own, *(point.name for point in installed("gmmcli.attacks"))]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        known = super().get_command(ctx, cmd_name)
        if known or cmd_name not in self.list_commands(ctx):
            return known
        single = Verbs()
        single.command(cmd_name, help=f"The attack {cmd_name} of an installed package.")(_added(cmd_name))
        return typer.main.get_command(single)


app = Verbs(cls=Attacks, help="Attack a trained run, and tell how far the accuracy under attack can be believed.")
Eps = Annotated[
    list[str] | None,
    typer.Option(
        "--eps", metavar="EPS", help="Radius in pixels of [0, 1]: 8/255, 0.031, or a comma list. Repeatable. Default: 8/255, for l2 0.5."
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--loss",
        help="ce (prone to masking), ce-scaled, margin, dlr, dlr-targeted, mmc or mmc-targeted.",
        autocompletion=completion.among("attack_losses", *completion.LOSSES),
    ),
]
Norm = Annotated[Literal["linf", "l2"], typer.Option("--norm", help="Norm of the perturbation.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Gradient steps.")]
StepSize = Annotated[float | None, typer.Option("--step-size", help="A step, as a share of eps. Default: 2.5 / steps.", show_default=False)]
Restarts = Annotated[int, typer.Option("--restarts", min=1, max=1000, help="Random starts; an image counts as broken if one breaks it.")]
Scale = Annotated[float, typer.Option("--scale", help="Attack the logits divided by this.")]
Float64 = Annotated[bool, typer.Option("--float64", help="Compute in float64, where gradients vanish later.")]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        help="Write the adversarial images here: an .npz, or a folder.",
        show_default=False,
        callback=lambda save: check_out(save, "adversarial images", (".npz",), "--save"),
    ),
]
Eot = Annotated[
    int,
    typer.Option("--eot", min=1, max=1000, help="With --refine: draws of its noise that a gradient is the mean of (EOT)."),
]


@dataclass(frozen=True)
class Attacked(Refining):
    """What of the model is attacked, and what is written."""

    eot: Eot = 10
    scale: Scale = 1.0
    float64: Float64 = False
    save: Save = None


@dataclass(frozen=True)
class FewImages(Images):
    """At most 500 images by default."""

    n: Annotated[
        int, typer.Option("--n", min=2, help="Maximum number of images, drawn at random: each takes thousands of forward passes.")
    ] = 500


def _attack(kind: str, eps: list[str] | None, attacked: Attacked, images: Images, of_run: OfRun, **settings: Any) -> None:
    """What the attacks within a ball share: open, attack, answer. Settings left out, or None, are the attack's defaults."""
    if attacked.scale <= 0:
        raise RecipeError(f"--scale {attacked.scale} must be positive")
    if (step_size := settings.get("step_size")) is not None and step_size <= 0:
        raise RecipeError(f"--step-size {step_size} must be positive", "it is a share of eps; 0.25 is a quarter of the radius")
    from gmmcli.attacks.algorithms import configured
    from gmmcli.attacks.audit import format_eps

    attack = configured(kind, seed=images.seed, **{name: value for name, value in settings.items() if value is not None})
    all_eps = radii(eps, attack.norm)
    subject = attacked.of(of_run.open(images))
    from gmmcli.evaluate.robustness import robust_accuracy

    note(
        "eps " + ", ".join(f"{format_eps(radius)} = {radius:.4f}" for radius in all_eps) + f" in pixels of [0, 1], {attack.norm}",
        of_run.quiet,
    )
    settings = {"float64": attacked.float64, "scale": attacked.scale, "eot": attacked.eot, "save_to": attacked.save}
    of_run.show(robust_accuracy(subject, attack, all_eps, **settings, quiet=of_run.quiet))


def _added(kind: str) -> Any:
    """The command of an attack that an installed package adds."""

    @with_options
    def command(
        eps: Eps = None,
        loss: Annotated[str | None, typer.Option("--loss", help="What it maximises. Default: the attack's.", show_default=False)] = None,
        steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps. Default: the attack's.", show_default=False)] = None,
        step_size: StepSize = None,
        restarts: Restarts = 1,
        norm: Annotated[
            Literal["linf", "l2"] | None,
            typer.Option("--norm", help="Norm of the perturbation. Default: the attack's.", show_default=False),
        ] = None,
        *,
        attacked: Attacked,
        images: Images,
        of_run: OfRun,
    ) -> None:
        _attack(kind, eps, attacked, images, of_run, loss=loss, steps=steps, step_size=step_size, restarts=restarts, norm=norm)

    return command


@app.command("fgsm", epilog="Example:\n\ngmmc attack fgsm --eps 8/255")
@with_options
def fgsm_command(eps: Eps = None, loss: Loss = "ce", *, attacked: Attacked, images: Images, of_run: OfRun) -> None:
    """One signed gradient step: the weakest attack, for comparison."""
    _attack("fgsm", eps, attacked, images, of_run, loss=loss)


@app.command(
    "pgd",
    epilog="Examples:\n\ngmmc attack pgd --eps 8/255\n\ngmmc attack pgd --eps 4/255,8/255,16/255 --loss margin --restarts 5\n\n"
    "gmmc attack pgd --loss margin --eps 32/255 --refine 10 --n 100",
)
@with_options
def pgd_command(
    eps: Eps = None,
    loss: Loss = "ce",
    steps: Steps = 40,
    step_size: StepSize = None,
    restarts: Restarts = 1,
    norm: Norm = "linf",
    *,
    attacked: Attacked,
    images: Images,
    of_run: OfRun,
) -> None:
    """Projected gradient steps from a random start; with --loss ce the paper's attack, which the audit shows to be masked."""
    _attack("pgd", eps, attacked, images, of_run, loss=loss, steps=steps, step_size=step_size, restarts=restarts, norm=norm)


@app.command("apgd", epilog="Example:\n\ngmmc attack apgd --eps 8/255 --loss dlr-targeted")
@with_options
def apgd_command(
    eps: Eps = None,
    loss: Loss = "dlr",
    steps: Steps = 100,
    restarts: Restarts = 1,
    norm: Norm = "linf",
    *,
    attacked: Attacked,
    images: Images,
    of_run: OfRun,
) -> None:
    """AutoAttack's gradient attack, which finds its step size by itself (Croce and Hein 2020)."""
    _attack("apgd", eps, attacked, images, of_run, loss=loss, steps=steps, restarts=restarts, norm=norm)


@app.command("square", epilog="Example:\n\ngmmc attack square --eps 8/255 --queries 5000")
@with_options
def square_command(
    eps: Eps = None,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Forward passes per image.")] = 5000,
    restarts: Restarts = 1,
    norm: Norm = "linf",
    *,
    attacked: Attacked,
    images: Images,
    of_run: OfRun,
) -> None:
    """A black-box attack without gradients, on the margin (Andriushchenko et al. 2020): gradient masking does not affect it."""
    _attack("square", eps, attacked, images, of_run, steps=queries, restarts=restarts, norm=norm)


@app.command("cw", epilog="Examples:\n\ngmmc attack cw\n\ngmmc attack cw --aim least-likely --steps 1000 --n 100")
@with_options
def cw_command(
    aim: Annotated[
        Literal["untargeted", "next", "least-likely"], typer.Option("--aim", help="Any wrong class, the next one, or the least likely one.")
    ] = "untargeted",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Adam's steps for each c.")] = 100,
    searches: Annotated[int, typer.Option("--searches", min=1, help="Values of c, by binary search for each image.")] = 9,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-6, help="Adam's.")] = 0.01,
    float64: Float64 = False,
    save: Save = None,
    out: GridOut = None,
    *,
    images: FewImages,
    of_run: OfRun,
) -> None:
    """Find the smallest L2 change that is misclassified (Carlini and Wagner 2017): success rate, mean and median norm, and a picture."""
    subject = of_run.open(images)
    from gmmcli.attacks.carlini import CarliniWagner
    from gmmcli.evaluate.carlini import carlini

    attack = CarliniWagner(aim, steps, searches, learning_rate)
    of_run.show(carlini(subject, attack, float64=float64, save_to=save, out=out, quiet=of_run.quiet))


@app.command("audit", epilog="Examples:\n\ngmmc attack audit\n\ngmmc attack audit --n 500 --transfer digits_dis")
@with_options
def audit_command(
    transfer: Annotated[
        str | None,
        typer.Option(
            "--transfer",
            metavar="RUN",
            help="Also try the adversarial images of this other run.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    eot: Eot = 10,
    out: Out = None,
    *,
    refining: Refining,
    images: FewImages,
    of_run: OfRun,
) -> None:
    """Run every attack: the worst case of each image over all of them, at eps from 1/255 to 1, and signs of gradient masking.

    Ends with one sentence: the robust accuracy to believe, and by how much PGD with cross-entropy overstated it.

    An interrupted audit is resumed where it stopped.

    With --refine every attack knows of the refinement, and what one that does not makes is tried as well.
    """
    subject = refining.of(of_run.open(images))
    other = of_run.open(images, transfer, saves=False) if transfer else None
    from gmmcli.evaluate.audit import audit

    of_run.show(audit(subject, transfer=other, eot=eot, out=out, quiet=of_run.quiet))
