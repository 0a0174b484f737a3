"""``gmmc classify``."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict
from glob import glob
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import GridOut, OfRun, SomeImages, answer, note, with_options
from gmmcli.errors import DataError, RecipeError, visible
from gmmcli.layout import Part, Table, show
from gmmcli.named import class_index

if TYPE_CHECKING:
    from gmmcli.evaluate.classify import Judgement, Verdict
    from gmmcli.evaluate.explain import Explained
    from gmmcli.types import RawImages

EPILOG = (
    "Examples:\n\ngmmc classify cat.jpg\n\ngmmc classify photos/ 'more/*.png' --csv > classes.csv\n\n"
    "gmmc classify - --json < cat.jpg\n\ngmmc classify cat.jpg --explain --label cat --out why.png"
)
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
    explaining: Annotated[
        bool, typer.Option("--explain", help="Show the nearest training images, the two best classes, and what the model would change.")
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="CLASS",
            help="With --explain: the true class of the images, by name or index.",
            show_default=False,
            autocompletion=completion.classes,
        ),
    ] = None,
    out: GridOut = None,
    *,
    of_run: OfRun,
) -> None:
    """Tell the class of images, its calibrated probability, and whether the model knows such images.

    Images are brought to the size that the model was trained on: the shorter side is resized, the centre cropped.

    The probability is at the temperature that was fitted on the run's validation images. An image is known if its log p(x) is as high as
    that of 95% of them.

    With --explain an image that is unknown, or not of the class --label, is led to its class (the label's, else the most probable one) in
    small steps down that class's energy, until the model calls it a known image of it. A picture of each image, the change, where it led
    and the nearest training images is written to --out.
    """
    _check(as_csv, explaining, label, out, of_run.json)
    files = dict(found for image in images for found in _files(image))
    import numpy as np
    import torch

    from gmmcli.data.decoding import decode
    from gmmcli.evaluate.classify import Judgement

    judge = Judgement(of_run.open(SomeImages(), saves=explaining and out is None))
    if label is not None:
        names = judge.subject.card.class_names
        label = names[class_index(label, names)]
    channels, size, _ = judge.subject.card.image_shape
    arrays, broken = {}, []
    for name, file in files.items():
        try:
            arrays[name] = decode(file, size, channels)
        except DataError as error:
            broken.append(error)
            note(f"warning: {error.message}")
    verdicts: dict[str, Verdict] = {}
    explained: dict[str, tuple[Explained, str]] = {}
    if arrays:
        pixels = torch.from_numpy(np.stack([*arrays.values()])).permute(0, 3, 1, 2)
        verdicts = dict(zip(arrays, judge(pixels), strict=True))
        if explaining:
            explained = _explained(judge, pixels, verdicts, label, out, of_run.quiet)
    if of_run.json:
        _answer(judge, verdicts, explained)
    elif as_csv:
        _write_csv(verdicts)
    else:
        show(_table(verdicts), *_explanations(explained))
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


def _check(as_csv: bool, explaining: bool, label: str | None, out: Path | None, json: bool) -> None:
    """Raise RecipeError for options that do not go together."""
    if as_csv and json:
        raise RecipeError("--csv and --json exclude each other", "give one of them")
    if as_csv and explaining:
        raise RecipeError("--explain has no --csv form", "use --json")
    if not explaining and (label is not None or out is not None):
        raise RecipeError(f"{'--out' if label is None else '--label'} is an option of --explain", "add --explain, or leave it out")


def _explained(
    judge: "Judgement", pixels: "RawImages", verdicts: "dict[str, Verdict]", label: str | None, out: Path | None, quiet: bool
) -> "dict[str, tuple[Explained, str]]":
    """The explanation of each verdict, and its picture, which is written here."""
    from gmmcli.evaluate.explain import draw, explain
    from gmmcli.storage import file_stem, placed

    if out is not None and not out.is_dir() and len(verdicts) > 1:
        raise RecipeError(f"--out {out}: {len(verdicts)} images have a picture each", "give a folder that exists")
    stems = ["stdin" if name == STDIN else file_stem(Path(name).stem) for name in verdicts]
    if len(stems) > 1:
        stems = [f"{i}-{stem}" for i, stem in enumerate(stems, 1)]  # images of several folders may be namesakes
    paths = [placed(out, judge.subject.run.output / "samples" / f"explained-{stem}.png") for stem in stems]
    found = explain(judge, pixels, [*verdicts.values()], label, quiet)
    for i, (verdict, path) in enumerate(zip(verdicts.values(), paths, strict=True)):
        draw(pixels[i : i + 1], verdict, found[i], path)
    return {name: (one, str(path)) for name, one, path in zip(verdicts, found, paths, strict=True)}


def _answer(judge: "Judgement", verdicts: "dict[str, Verdict]", explained: "dict[str, tuple[Explained, str]]") -> None:
    subject, values = judge.subject, []
    protocol = judge.protocol
    if explained:
        from gmmcli.evaluate.explain import PROTOCOL

        protocol |= {"explanation": PROTOCOL}
    for name, verdict in verdicts.items():
        value: dict[str, Any] = {"image": name, **asdict(verdict)}
        if name in explained:
            one, path = explained[name]
            value |= {"explanation": asdict(one.explanation), "path": path}
        values.append(value)
    about = {"run": subject.run.id, "step": subject.step, "n": len(verdicts), "protocol": protocol}
    answer({"schema": 1, "command": "classify", **about, "values": values})


def _write_csv(verdicts: "dict[str, Verdict]") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("image", "label", "probability", "log_density", "known"))
    for name, verdict in verdicts.items():
        writer.writerow((visible(name), *asdict(verdict).values()))


def _table(verdicts: "dict[str, Verdict]") -> Table:
    table = Table(("image", "class", "probability", "verdict"))
    for name, verdict in verdicts.items():
        table.add(name, verdict.label, f"{verdict.probability:.1%}", "known" if verdict.known else "unknown")
    return table


def _explanations(explained: "dict[str, tuple[Explained, str]]") -> Iterator[Part]:
    for name, (one, path) in explained.items():
        table = Table(sentences=True)
        for key, lines in one.explanation.lines().items():
            for i, line in enumerate(lines):
                table.add("" if i else key, line)
        yield from ("", name, table, Path(path))
