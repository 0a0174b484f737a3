"""``gmmc classify``."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict
from glob import glob
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmmcli.cli.options import OfRun, SomeImages, answer, note, with_options
from gmmcli.errors import DataError, RecipeError, visible

if TYPE_CHECKING:
    from gmmcli.evaluate.classify import Verdict

EPILOG = "Examples:\n\ngmmc classify cat.jpg\n\ngmmc classify photos/ 'more/*.png' --csv > classes.csv\n\ngmmc classify - --json < cat.jpg"
STDIN = "-"


class StandardInput(BytesIO):
    """What came in, by its name in errors."""

    def __str__(self) -> str:
        return "standard input"


File = Path | StandardInput


@with_options
def classify_command(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, patterns such as '*.png', or - for standard input.")
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values, a line for each image.")] = False,
    *,
    of_run: OfRun,
) -> None:
    """Tell the class of images, its calibrated probability, and whether the model knows such images.

    Images are brought to the size that the model was trained on: the shorter side is resized, the centre cropped.

    The probability is at the temperature that was fitted on the run's validation images. An image is known if its log p(x) is as high as
    that of 95% of them.
    """
    if as_csv and of_run.json:
        raise RecipeError("--csv and --json exclude each other", "give one of them")
    files = dict(found for image in images for found in _files(image))
    import numpy as np
    import torch

    from gmmcli.data.decoding import decode
    from gmmcli.evaluate.classify import Judgement

    judge = Judgement(of_run.open(SomeImages(), saves=False))
    channels, size, _ = judge.subject.card.image_shape
    arrays, broken = {}, []
    for name, file in files.items():
        try:
            arrays[name] = decode(file, size, channels)
        except DataError as error:
            broken.append(error)
            note(f"warning: {error.message}")
    verdicts = dict(zip(arrays, judge(torch.from_numpy(np.stack([*arrays.values()])).permute(0, 3, 1, 2)), strict=True)) if arrays else {}
    if of_run.json:
        subject = judge.subject
        about = {"run": subject.run.id, "step": subject.step, "n": len(verdicts), "protocol": judge.protocol}
        values = [{"image": name, **asdict(verdict)} for name, verdict in verdicts.items()]
        answer({"schema": 1, "command": "classify", **about, "values": values})
    elif as_csv:
        _write_csv(verdicts)
    else:
        _print_table(verdicts)
    if broken:
        raise DataError(f"{len(broken)} of {len(files)} files could not be read as images", broken[0].hint)


def _files(image: str) -> Iterator[tuple[str, File]]:
    """The files that an argument means, by what they are called in the answer; DataError where there is none."""
    from gmmcli.data.tree import images_below

    if image == STDIN:
        yield STDIN, StandardInput(sys.stdin.buffer.read())
        return
    path = Path(image)
    if path.is_dir():
        found = [Path(str(file)) for file in images_below(path)]
    else:
        found = [path] if path.exists() else [Path(name) for name in sorted(glob(image, recursive=True))]  # noqa: PTH207 - a pattern may be absolute
    if not found:
        raise DataError(f"no image at {image}", "give image files, folders of them, or a pattern in quotes such as '*.png'")
    yield from ((str(file), file) for file in found)


def _write_csv(verdicts: "dict[str, Verdict]") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("image", "label", "probability", "log_density", "known"))
    for name, verdict in verdicts.items():
        writer.writerow((visible(name), *asdict(verdict).values()))


def _print_table(verdicts: "dict[str, Verdict]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability", "verdict", box=box.SIMPLE)
    for name, verdict in verdicts.items():
        table.add_row(
            Text(visible(name)), Text(visible(verdict.label)), f"{verdict.probability:.1%}", "known" if verdict.known else "unknown"
        )
    Console(highlight=False).print(table)
