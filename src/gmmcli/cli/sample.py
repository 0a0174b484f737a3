"""``gmmc sample``."""

import re
from dataclasses import replace
from difflib import get_close_matches
from enum import StrEnum
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmmcli.cli.options import Device, Json, Quiet, RunName, RunsDir, answer, note, select_device
from gmmcli.errors import RecipeError

if TYPE_CHECKING:
    from gmmcli.run import ModelCard, Run
    from gmmcli.types import Images

EPILOG = "Examples:\n\ngmmc sample --class 3 --n 64\n\ngmmc sample --class all --n 10 --from buffer\n\ngmmc sample --class cat --format npz"
CHUNK = 256  # chains at a time; each is independent of its company
ROW = 16  # images in a row when several classes share a grid


class Origin(StrEnum):
    """Where samples come from."""

    noise = "noise"
    buffer = "buffer"


class Format(StrEnum):
    """What is written."""

    grid = "grid"
    png = "png"
    npz = "npz"


def sample_command(
    label: Annotated[str, typer.Option("--class", metavar="CLASS", help="A class by name or index, or all.")] = "all",
    n: Annotated[int, typer.Option("--n", min=1, help="Images per class.")] = 64,
    origin: Annotated[
        Origin, typer.Option("--from", help="Fresh chains from noise, or the replay buffer as training left it.")
    ] = Origin.noise,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Updates of a fresh chain. Default: chains.fresh_steps of the recipe.")
    ] = None,
    step_size: Annotated[float | None, typer.Option("--step-size", help="Step size. Default: where training ended.")] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", min=0, help="Noise std a fresh chain sets out with, annealed to none. Default: the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same images.")] = 1,
    form: Annotated[
        Format, typer.Option("--format", help="A labelled grid, single PNGs in a folder, or an .npz (images N x H x W x C uint8, labels).")
    ] = Format.grid,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write. Default: samples/ in the run.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The weights of the best validation accuracy instead of the last.")] = False,
    run: RunName = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw images of a class, from fresh chains or from the replay buffer; prints the path of what it wrote."""
    if step_size is not None and step_size <= 0:
        raise RecipeError(f"--step-size {step_size} must be positive")
    if origin is Origin.buffer and any(option is not None for option in (steps, step_size, noise)):
        raise RecipeError("--steps, --step-size and --noise shape fresh chains", "leave them out with --from buffer")
    import torch

    from gmmcli.core.chains import fresh_samples
    from gmmcli.rng import stream
    from gmmcli.run import open_run
    from gmmcli.train.log import Voice

    chosen = open_run(run, runs_dir)
    card = chosen.card(best)
    where = select_device(device)
    checkpoint = chosen.checkpoint(best)
    note(f"run {chosen.path}, step {checkpoint.step}", quiet)
    classes = _classes(label, card.class_names)
    model = chosen.model(best, where)
    labels = torch.tensor(classes).repeat_interleave(n)
    protocol: dict[str, Any]
    if origin is Origin.buffer:
        images = _from_buffer(chosen, classes, n, seed)
        protocol, about = {"from": "buffer", "seed": seed}, "from the replay buffer"
    else:
        reached = chosen.step_size()
        size = step_size if step_size is not None else float(reached) if reached is not None else chosen.recipe.chains.sampler.step_size
        table = card.recipe.chains if noise is None else replace(card.recipe.chains, fresh_noise_std=noise)
        n_steps = steps or table.lifetime
        parts = []
        with Voice("chains", len(labels), quiet) as voice:
            for i, part in enumerate(torch.split(labels, CHUNK)):
                generator = stream(where, seed, "sample", i)
                drawn = fresh_samples(model, table, part.to(where), card.image_shape, generator, n_steps, torch.tensor(size, device=where))
                parts.append(drawn.cpu())
                voice.at(min(len(labels), (i + 1) * CHUNK), f"{n_steps} steps of {size:.3g}")
        images = torch.cat(parts)
        protocol = {"from": "noise", "steps": n_steps, "step_size": size, "noise_std": table.fresh_noise_std, "seed": seed}
        about = f"fresh chains, {n_steps} steps of {size:.3g}, seed {seed}"
    with torch.no_grad():
        logits = torch.cat([model(part.to(where)).cpu() for part in torch.split(images, CHUNK)])
    caption = f"{card.recipe.name}, step {checkpoint.step:,}: {about}{_accuracy(chosen, checkpoint.step)}"
    paths = _write(chosen, card, images, classes, n, form, out, caption)
    if not json:
        print("\n".join(map(str, paths)))
        return
    values = {
        "paths": [str(path) for path in paths],
        "energy_mean": float(-logits.gather(1, labels[:, None]).mean()),
        "recognised_by_itself": float((logits.argmax(1) == labels).float().mean()),
    }
    about_run = {"schema": 1, "command": "sample", "run": chosen.id, "step": checkpoint.step}
    answer(about_run | {"classes": [card.class_names[k] for k in classes], "n": len(labels), "protocol": protocol, "values": values})


def _accuracy(run: "Run", step: int) -> str:
    """The test accuracy measured at this step, as the end of a caption."""
    result = run.result("eval accuracy")
    if result is None or result["step"] != step:
        return ""
    return f"; test accuracy {result['values']['accuracy']:.1%} (n = {result['n']})"


def _classes(label: str, names: tuple[str, ...]) -> list[int]:
    """The class indices meant by a name, an index or ``all``."""
    if label == "all":
        return list(range(len(names)))
    if label in names:
        return [names.index(label)]
    if label.isdigit() and int(label) < len(names):
        return [int(label)]
    near = get_close_matches(label, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"give an index from 0 to {len(names) - 1}, all, or one of: {', '.join(names[:20])}"
    raise RecipeError(f"no class {label!r} among the {len(names)} of this run", hint)


def _from_buffer(run: "Run", classes: list[int], n: int, seed: int) -> "Images":
    """Random slots of each class, none twice."""
    import torch

    from gmmcli.core.buffer import decode
    from gmmcli.rng import stream

    buffer = run.buffer()
    if n > buffer.slots:
        raise RecipeError(f"--n {n} is more than the buffer's {buffer.slots} images a class", "ask for fewer, or use --from noise")
    slots = [torch.randperm(buffer.slots, generator=stream("cpu", seed, "slots", k))[:n] for k in classes]
    return torch.cat([decode(buffer.images[k, chosen]) for k, chosen in zip(classes, slots, strict=True)])


def _write(
    run: "Run", card: "ModelCard", images: "Images", classes: list[int], n: int, form: Format, out: Path | None, about: str
) -> list[Path]:
    """Write the images, n of each class in turn, and return the paths."""
    import numpy as np
    import torch

    from gmmcli.data.pictures import save_grid, save_image, to_arrays, wrapped

    names = [re.sub(r"[^\w-]+", "_", card.class_names[k]) for k in classes]  # a class name may be anything, a path not
    name = "all" if len(classes) > 1 else names[0]
    folder = run.path / "samples"
    arrays = to_arrays(images)
    match form:
        case Format.npz:
            path = out or folder / f"class-{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:  # savez would add .npz to another name
                np.savez_compressed(file, images=arrays, labels=np.repeat(classes, n), class_names=np.array(card.class_names))
            return [path]
        case Format.png:
            path = out or folder / f"class-{name}"
            paths = [path / label / f"{i:05d}.png" for label in names for i in range(n)]
            for array, target in zip(arrays, paths, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                save_image(array, target)
            return paths
        case Format.grid:
            path = out or folder / f"class-{name}.png"
            columns = min(n, ROW) if len(classes) > 1 else ceil(sqrt(n))
            rows = [
                row for k, part in zip(classes, torch.split(images, n), strict=True) for row in wrapped(part, columns, card.class_names[k])
            ]
            save_grid(rows, path, about)
            return [path]
