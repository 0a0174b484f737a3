"""``gmmc import``."""

from pathlib import Path
from typing import Annotated

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Device, Json, Quiet, RunsDir, answer, note
from gmmcli.layout import show
from gmmcli.named import select_device

EPILOG = "Examples:\n\ngmmc import best_valid_ckpt.pt --data cifar10\n\ngmmc import CIFAR10_MODEL.pt --name jem --data cifar10"


def import_command(
    checkpoint: Annotated[Path, typer.Argument(help="A .pt file of GMMC's or JEM's own code.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="What the run is called. Default: as the file is.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="What the model was trained on: NAME, folder:PATH or npz:PATH. gamma^2 is estimated on it. Default: none.",
            show_default=False,
            autocompletion=completion.sources,
        ),
    ] = None,
    runs_dir: RunsDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a run of a checkpoint that the authors' code of GMMC or JEM has saved; nothing in the file is executed.

    gamma^2 is in no file: without --data, accuracy, calibration and detection of a GMMC cannot be measured.
    """
    from gmmcli.importer.to_run import import_checkpoint
    from gmmcli.run import default_runs_dir

    done = import_checkpoint(checkpoint, runs_dir or default_runs_dir(), name=name, data=data, device=select_device(device), quiet=quiet)
    recipe, has_buffer = done.card.recipe, done.run.checkpoint().has("buffer")
    document = recipe.document()["model"]
    about = "WRN-{depth}-{width}, norm {norm}".format(**document["backbone"])
    note(f"{done.about['origin']}, {about}, {len(done.card.class_names)} classes, {'a' if has_buffer else 'no'} replay buffer", quiet)
    for sentence in done.notes:
        note(sentence)
    if not json:
        show(done.run.path)
        return
    values = {
        "path": str(done.run.path),
        "imported": done.about,
        "model": document,
        "n_classes": len(done.card.class_names),
        "gamma2": done.card.gamma2,
        "buffer_size": recipe.chains.buffer_size if has_buffer else 0,
        "notes": list(done.notes),
    }
    answer({"schema": 1, "command": "import", "run": done.run.id, "step": 0, "values": values})
