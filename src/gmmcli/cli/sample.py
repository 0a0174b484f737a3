"""``gmmc sample``."""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from math import ceil, inf, isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import normalize

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import GRIDS, MOST, OfRun, Origin, answer, check_out, note, with_options
from gmmcli.errors import DataError, RecipeError
from gmmcli.layout import show
from gmmcli.named import class_indices, select_device

if TYPE_CHECKING:
    from gmmcli.data.dataset import Dataset
    from gmmcli.model_card import ModelCard
    from gmmcli.run import Run
    from gmmcli.types import Labels, RawImages

EPILOG = (
    "Examples:\n\ngmmc sample --class 3 --n 64\n\ngmmc sample --class all --per-class 10 --from buffer\n\n"
    "gmmc sample --class all --per-class 8 --with-real\n\ngmmc sample --class cat --format npz"
)
RESERVED = ("con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)))  # by Windows
EACH = 64
ROW = 16  # images in a row when several classes share a grid, or real images stand beside samples


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
    with_real: Annotated[
        bool, typer.Option("--with-real", help="In the grid: as many of the run's test images beside the samples of each class.")
    ] = False,
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
    if with_real and form is not Format.grid:
        raise RecipeError(f"--with-real goes with --format grid, not with --format {form}", "leave one of them out")
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
    folder = found.output / "samples"
    if out is None or form is Format.png:
        check_writable((out or folder) / "0.png")
    where = select_device(of_run.device)
    checkpoint, card, model = one_checkpoint(found, best, where)
    check_same_checkpoint(found, checkpoint.step)
    note(f"run {found.path}, step {checkpoint.step}", of_run.quiet)
    asked = [class_indices(name, card.class_names) for name in labels_asked or ["all"]]
    classes = sorted({k for some in asked for k in some})
    draw = Draw(origin, steps, step_size, noise, seed)
    labels = spread(classes, n or (per_class or EACH) * len(classes))
    data = _test_images(found, card) if with_real else None
    with image_progress("chains", len(labels), of_run.quiet) as progress:
        images, _, protocol = draw(found, model, labels, progress)
    about = "from the replay buffer"
    if origin == "noise":
        about = f"fresh chains, {protocol['steps']} steps of {protocol['step_size']:.3g}, seed {seed}"
    raw = to_bytes(images)
    logits = predict(model, raw.to(where)).cpu()
    caption = f"{card.recipe.name}, step {checkpoint.step:,}: {about}{_accuracy(found, checkpoint.step)}"
    words = [f"n{len(labels)}"] * (len(labels) != EACH * len(classes)) + departures(draw, Draw()) + ["best"] * best
    name = _name(card.class_names, list(dict.fromkeys(labels.tolist())), [*words, *["with-real"] * with_real])
    values = {
        "energy_mean": float(-logits.gather(1, labels[:, None]).mean()),
        "recognised_by_itself": float((logits.argmax(1) == labels).float().mean()),
    }
    result: dict[str, Any] = {"schema": 1, "command": "sample", "run": found.id, "step": checkpoint.step}
    result |= {"classes": [card.class_names[k] for k in classes], "n": len(labels), "protocol": protocol, "values": values}
    groups = {"generated": (raw, labels)}
    if data:  # it is compared with them: the result is kept, as that of any comparison
        real, real_labels = data.test.like(labels, seed).batch()
        groups = {f"real ({data.title}, test)": (real, real_labels)} | groups
        result |= {"dataset": data.title, "split": "test", "n_real": len(real)}
        arrays = {"samples": raw, "labels": labels, "real": real, "real_labels": real_labels}
        named = {key: some.numpy() for key, some in arrays.items()}
        once(lambda: [found.save_result(result, f"sample {name}", **named)])
    paths = once(partial(_write, groups, card.class_names, form, out, folder / name, caption))
    if of_run.json:
        answer(result | {"values": {"paths": [str(path) for path in paths]} | values})
    else:
        show(*paths)


def _test_images(run: "Run", card: "ModelCard") -> "Dataset":
    """The run's data; DataError where they are missing, before any chain is run."""
    from gmmcli.evaluate.subject import images_for

    try:
        return images_for(run, card)
    except DataError as error:
        raise DataError(f"--with-real shows the run's test images: {error.message}", f"{error.hint}, or leave out --with-real") from error


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


def _name(class_names: Sequence[str], classes: Sequence[int], words: list[str]) -> str:
    """What is written is called by its classes and by the settings that differ from their defaults."""
    from gmmcli.storage import file_stem

    names = "-".join(file_names(class_names)[k] for k in classes)
    return file_stem(" ".join(["class-all" if len(classes) == len(class_names) > 1 else f"class-{names}", *words]))


def _write(
    groups: "dict[str, tuple[RawImages, Labels]]", class_names: Sequence[str], form: Format, out: Path | None, usual: Path, caption: str
) -> list[Path]:
    """Write the samples, class by class, in a grid beside other groups of images, to ``out`` or the usual place; return the paths."""
    import numpy as np

    from gmmcli.data.pictures import save_grid, save_image, to_arrays, wrapped
    from gmmcli.storage import placed, write_arrays
    from gmmcli.types import to_model

    images, labels = groups["generated"]
    counts = Counter(labels.tolist())  # in the order of the classes
    arrays = to_arrays(to_model(images))
    match form:
        case Format.npz:
            path = placed(out, usual.with_name(f"{usual.name}.npz"))
            write_arrays(path, images=arrays, labels=labels.numpy(), class_names=np.array(class_names))
            return [path]
        case Format.png:
            names = file_names(class_names)
            paths = [(out or usual) / names[k] / f"{i:05d}.png" for k, n in counts.items() for i in range(n)]
            for array, target in zip(arrays, paths, strict=True):
                save_image(array, target)
            return paths
        case Format.grid:
            alone = len(counts) == len(groups) == 1
            columns = ceil(sqrt(len(labels))) if alone else min(max(counts.values()), ROW // len(groups))
            rows = [
                row for k in counts for row in wrapped(class_names[k], columns, *(to_model(some[of == k]) for some, of in groups.values()))
            ]
            headings = [] if len(groups) == 1 else [*groups]
            return save_grid(rows, placed(out, usual.with_name(f"{usual.name}.png")), caption, headings=headings)
