"""``gmmc sample``."""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from math import ceil, inf, isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unicodedata import normalize

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import GRIDS, MOST, OfRun, Origin, answer, check_out, note, print_path, with_options
from gmmcli.errors import RecipeError
from gmmcli.named import class_indices, select_device

if TYPE_CHECKING:
    from gmmcli.model_card import ModelCard
    from gmmcli.run import Run
    from gmmcli.types import Images, Labels

EPILOG = (
    "Examples:\n\ngmmc sample --class 3 --n 64\n\ngmmc sample --class all --per-class 10 --from buffer\n\n"
    "gmmc sample --class cat --format npz"
)
RESERVED = ("con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)))  # by Windows
EACH = 64
ROW = 16  # images in a row when several classes share a grid


class Format(StrEnum):
    """What is written."""

    grid = "grid"
    png = "png"
    npz = "npz"


@with_options
def sample_command(
    labels_asked: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="A class by name or index; may be repeated. Default: all.",
            show_default=False,
            autocompletion=completion.classes,
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=1, max=MOST, help="Total number of images, balanced over the classes. Default: 64 per class.", show_default=False
        ),
    ] = None,
    per_class: Annotated[
        int | None, typer.Option("--per-class", min=1, max=MOST, help="Number of images per class.", show_default=False)
    ] = None,
    origin: Origin = "noise",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=MOST, help="Updates of a fresh chain. Default: chains.fresh_steps of the recipe.")
    ] = None,
    step_size: Annotated[
        float | None, typer.Option("--step-size", help="Step size. Default: chains.sampler.step_size of the recipe.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", min=0, help="Noise std that fresh chains set out with. Default: the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same images.")] = 1,
    form: Annotated[
        Format, typer.Option("--format", help="A labelled grid, single PNGs in a folder, or an .npz (images N x H x W x C uint8, labels).")
    ] = Format.grid,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write. Default: samples/ in the run.")] = None,
    *,
    of_run: OfRun,
) -> None:
    """Draw images of a class, from fresh chains or from the replay buffer; prints the path of what it wrote."""
    if step_size is not None and not 0 < step_size < inf:
        raise RecipeError(f"--step-size {step_size} must be positive and finite")
    if noise is not None and not isfinite(noise):
        raise RecipeError(f"--noise {noise} must be finite", "leave it out for the recipe's")
    if n is not None and per_class is not None:
        raise RecipeError("--n and --per-class exclude each other", "--n is the total, --per-class the number per class")
    if form is not Format.png:
        check_out(out, *(("a grid of images", GRIDS) if form is Format.grid else ("--format npz", (".npz",))))
    from gmmcli.core.classifier import predict
    from gmmcli.distributed import once
    from gmmcli.evaluate.samples import Draw, spread
    from gmmcli.evaluate.subject import check_same_checkpoint, one_checkpoint
    from gmmcli.progress import image_progress
    from gmmcli.results import departures
    from gmmcli.run import open_run
    from gmmcli.storage import check_writable
    from gmmcli.types import to_bytes

    found, best = open_run(of_run.run, of_run.runs_dir), of_run.best
    if out is None or form is Format.png:
        check_writable((out or found.output / "samples") / "0.png")
    where = select_device(of_run.device)
    checkpoint, card, model = one_checkpoint(found, best, where)
    check_same_checkpoint(found, checkpoint.step)
    note(f"run {found.path}, step {checkpoint.step}", of_run.quiet)
    asked = [class_indices(name, card.class_names) for name in labels_asked or ["all"]]
    classes = sorted({k for some in asked for k in some})
    draw = Draw(origin, steps, step_size, noise, seed)
    labels = spread(classes, n or (per_class or EACH) * len(classes))
    with image_progress("chains", len(labels), of_run.quiet) as progress:
        images, _, protocol = draw(found, model, labels, progress)
    about = "from the replay buffer"
    if origin == "noise":
        about = f"fresh chains, {protocol['steps']} steps of {protocol['step_size']:.3g}, seed {seed}"
    logits = predict(model, to_bytes(images).to(where)).cpu()
    caption = f"{card.recipe.name}, step {checkpoint.step:,}: {about}{_accuracy(found, checkpoint.step)}"
    words = [f"n{len(labels)}"] * (len(labels) != EACH * len(classes)) + departures(draw, Draw()) + ["best"] * best
    paths = once(partial(_write, found, card, images, labels, form, out, caption, words))
    if not of_run.json:
        for path in paths:
            print_path(path)
        return
    values = {
        "paths": [str(path) for path in paths],
        "energy_mean": float(-logits.gather(1, labels[:, None]).mean()),
        "recognised_by_itself": float((logits.argmax(1) == labels).float().mean()),
    }
    about_run = {"schema": 1, "command": "sample", "run": found.id, "step": checkpoint.step}
    answer(about_run | {"classes": [card.class_names[k] for k in classes], "n": len(labels), "protocol": protocol, "values": values})


def _accuracy(run: "Run", step: int) -> str:
    """The test accuracy measured at this step, as the end of a caption."""
    result = run.result("eval accuracy")
    accuracy = result["values"].get("accuracy") if result and result.get("step") == step else None
    return "" if accuracy is None or result is None else f"; test accuracy {accuracy:.1%} (n = {result.get('n')})"


def file_names(class_names: Sequence[str]) -> list[str]:
    """Return a name for a file of each class: a class may be called anything, and no disk takes two for one."""
    from gmmcli.storage import LONGEST

    names = [re.sub(r"[^\w-]+", "_", name).encode()[:LONGEST].decode(errors="ignore") or "_" for name in class_names]
    while (there := Counter([*RESERVED, *map(_on_disk, names)])).most_common(1)[0][1] > 1:
        names = [name if there[_on_disk(name)] == 1 else f"{name}_{k}" for k, name in enumerate(names)]
    return names


def _on_disk(name: str) -> str:
    """The name as disks compare it that distinguish neither case nor ways to write an accent."""
    return normalize("NFKC", name).casefold()


def _write(
    run: "Run",
    card: "ModelCard",
    images: "Images",
    labels: "Labels",
    form: Format,
    out: Path | None,
    about: str,
    words: list[str],
) -> list[Path]:
    """Write the images, class by class, under a name with the settings that differ from their defaults; return the paths."""
    import numpy as np
    import torch

    from gmmcli.data.pictures import save_grid, save_image, to_arrays, wrapped
    from gmmcli.storage import file_stem, placed, write_arrays

    classes = list(dict.fromkeys(labels.tolist()))
    counts = [int((labels == k).sum()) for k in classes]
    names = [file_names(card.class_names)[k] for k in classes]
    stem = (
        run.output
        / "samples"
        / file_stem(" ".join(["class-all" if len(classes) == len(card.class_names) > 1 else f"class-{'-'.join(names)}", *words]))
    )
    arrays = to_arrays(images)
    match form:
        case Format.npz:
            path = placed(out, stem.with_name(f"{stem.name}.npz"))
            write_arrays(path, images=arrays, labels=labels.numpy(), class_names=np.array(card.class_names))
            return [path]
        case Format.png:
            paths = [(out or stem) / name / f"{i:05d}.png" for name, n in zip(names, counts, strict=True) for i in range(n)]
            for array, target in zip(arrays, paths, strict=True):
                save_image(array, target)
            return paths
        case Format.grid:
            columns = min(max(counts), ROW) if len(classes) > 1 else ceil(sqrt(len(labels)))
            parts = zip(classes, torch.split(images, counts), strict=True)
            rows = [row for k, part in parts for row in wrapped(part, columns, card.class_names[k])]
            return save_grid(rows, placed(out, stem.with_name(f"{stem.name}.png")), about)
