"""``gmmc restore`` and ``gmmc morph``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import GRIDS, GridOut, OfRun, Seed, SomeImages, answer, check_out, with_options
from gmmcli.layout import show

if TYPE_CHECKING:
    from gmmcli.evaluate.subject import Subject
    from gmmcli.types import RawImages

RESTORE = "Examples:\n\ngmmc restore photo.png --mask hole.png --class horse --n 8\n\ngmmc restore photo.png --denoise 0.1"
MORPH = "Example:\n\ngmmc morph --from ship --to horse --out ship-horse.gif"
MOVING = (".gif", ".webp")
LONG = 120  # milliseconds of a frame


@with_options
def restore_command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image file.")],
    mask: Annotated[
        Path | None, typer.Option("--mask", help="An image that is white where pixels are to be filled in, black elsewhere.")
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            "--denoise", metavar="SIGMA", min=0.001, max=2, help="Standard deviation of the noise to remove, on a scale of 0 to 1."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Its class by name or index. Default: unknown.",
            show_default=False,
            autocompletion=completion.classes,
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, max=64, help="Number of answers to --mask.")] = 8,
    seed: Seed = 1,
    out: GridOut = None,
    *,
    of_run: OfRun,
) -> None:
    """Fill in missing pixels, or remove noise, by chains that keep to what is known; writes what was given and the answers side by side."""
    import torch

    from gmmcli.data.pictures import save_grid
    from gmmcli.evaluate.restore import known_of, restored
    from gmmcli.storage import placed

    subject = of_run.open(SomeImages(), saves=out is None)
    given = _read(image, subject)
    known = known_of(_read(mask, subject), str(mask)) if mask else None
    shown, answers = restored(subject, given, known, sigma, label, n, seed)
    path = placed(out, subject.run.output / "samples" / f"restored-{image.stem}.png")
    caption = f"{subject.card.recipe.name}, step {subject.step:,}"
    save_grid([("given, restored", torch.cat([shown, answers]).cpu())], path, caption)
    if of_run.json:
        protocol = {"class": label, "seed": seed} | ({"sigma": sigma} if mask is None else {"mask": str(mask), "n": n})
        about = {"run": subject.run.id, "step": subject.step, "protocol": protocol}
        answer({"schema": 1, "command": "restore", **about, "values": {"image": str(image), "path": str(path)}})
        return
    show(path)


@with_options
def morph_command(
    origin: Annotated[
        str, typer.Option("--from", metavar="CLASS", help="The class to begin with, by name or index.", autocompletion=completion.classes)
    ],
    to: Annotated[str, typer.Option("--to", metavar="CLASS", help="The class to end with.", autocompletion=completion.classes)],
    n: Annotated[int, typer.Option("--n", min=1, max=64, help="Number of samples.")] = 8,
    frames: Annotated[int, typer.Option("--frames", min=2, max=200, help="Images on the way, both ends included.")] = 12,
    seed: Seed = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A .png has the frames in a row; a .gif or .webp moves. Default: a .gif in the run's samples/."),
    ] = None,
    *,
    of_run: OfRun,
) -> None:
    """Lead samples of one class to another by chains between their energies; writes a moving picture, or all frames in a row."""
    check_out(out, "a morph", (*MOVING, *GRIDS))
    moving = out is None or out.is_dir() or out.suffix.lower() in MOVING
    import torch

    from gmmcli.data.pictures import save_grid, save_moving
    from gmmcli.evaluate.restore import morphed
    from gmmcli.progress import image_progress
    from gmmcli.storage import placed

    subject = of_run.open(SomeImages(), saves=out is None)
    with image_progress("frames", frames, of_run.quiet) as progress:
        found, first, last = morphed(subject, origin, to, n, frames, seed, progress)
    path = placed(out, subject.run.output / "samples" / f"morph-{first}-{last}.gif")
    names = subject.card.class_names[first], subject.card.class_names[last]
    if moving:
        save_moving(found, path, LONG)
    else:
        save_grid([("", torch.stack([frame[i] for frame in found])) for i in range(n)], path, " to ".join(names))
    if of_run.json:
        protocol = {"from": names[0], "to": names[1], "frames": frames, "seed": seed}
        about = {"run": subject.run.id, "step": subject.step, "n": n, "protocol": protocol}
        answer({"schema": 1, "command": "morph", **about, "values": {"path": str(path)}})
        return
    show(path)


def _read(path: Path, subject: "Subject") -> "RawImages":
    """An image file as bytes, of the size that the model takes, shape (1, channel, height, width)."""
    import torch

    from gmmcli.data.decoding import decode

    channels, size, _ = subject.card.image_shape
    return torch.from_numpy(decode(path, size, channels).copy()).permute(2, 0, 1)[None]
