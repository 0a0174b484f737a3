"""The screen of ``gmmc watch``: lines that fit a terminal of any size."""

from datetime import datetime
from itertools import zip_longest
from math import ceil
from pathlib import Path

from rich.text import Text

from gmmcli.layout import flowing
from gmmcli.watch.blocks import half_blocks, preview
from gmmcli.watch.braille import braille, value_range
from gmmcli.watch.watched import Watched, number
from gmmcli.watch.words import NAMES, event, figure, progress

GAP = 2
NARROWEST_CURVE, WIDEST_CURVE = 34, 60
LOWEST_CURVE, HIGHEST_CURVE, LOWEST_PICTURE = 2, 8, 8
"""In characters; narrower than this is a curve only in a terminal that is."""
BESIDE = 100
"""Columns of a terminal where the picture has its place beside the curves."""
EVENTS = 3
COLOURS = {
    "loss": "yellow",
    "validation_accuracy": "green",
    "energy_data": "cyan",
    "energy_model": "magenta",
    "accuracy": "green",
    "sample_distance": "blue",
}
SAME_AXIS = ("energy_data", "energy_model")
STATUS = {"running": "bold green", "finished": "bold blue", "created": "bold yellow"}


def screen(watched: Watched, width: int, height: int, *, coloured: bool = True, keys: bool = False) -> list[Text]:
    """Draw a run.

    Args:
        watched: the run, as it was when it was last looked at.
        width: columns of the terminal.
        height: its rows.
        coloured: whether it has colours; without them only the path of the picture is shown.
        keys: whether it takes keys, which is then said.

    Returns:
        At most ``height`` lines, none wider than ``width``.
    """
    head = _head(watched, width, keys)
    events = [Text(part, "red") for line in [*watched.events][-EVENTS:] for part in flowing(event(line).split(" "), width)]
    picture = watched.preview if coloured else None
    beside = picture is not None and width >= BESIDE
    left = width * 3 // 5 if beside else width
    body = _curves(watched, left, height - len(head) - len(events), alone=beside or not picture) + events
    if picture and beside:
        shown = _picture(picture, width - left - GAP, height - len(head))
        body = [_joined(one, left + GAP, other) for one, other in zip_longest(body, shown, fillvalue=Text())]
    elif picture:
        body += _picture(picture, width, height - len(head) - len(body))
    elif watched.preview:
        body.append(Text(f"newest preview: {watched.preview.relative_to(watched.path)}", "dim"))
    lines = [*head, *body][:height]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _head(watched: Watched, width: int, keys: bool) -> list[Text]:
    """Which run it is, its status, and how far it is."""
    title = Text.assemble((watched.status, STATUS.get(watched.status, "bold red")), "  ", (watched.path.name, "bold"))
    if keys:
        title.append("  q to quit", "dim")
    epoch, stage, speed = (number(watched.last, key) for key in ("epoch", "stage", "images_per_sec"))
    facts, stages = [progress(watched)], len(watched.recipe.get("stages", ()))
    if epoch is not None:
        facts.append(f"epoch {epoch:.3g}")
    if stage is not None and stages > 1:
        facts.append(f"stage {stage + 1:.0f} of {stages}")
    if speed is not None:
        facts.append(f"{speed:,.0f} images/s")
    if watched.logged_at:
        facts.append(f"logged {datetime.fromtimestamp(watched.logged_at):%H:%M:%S}")
    first, *others = map(Text, flowing(facts, width, " " * GAP) if watched.last else ["no line in metrics.jsonl yet"])
    head = [title, first]
    if watched.total:
        done = round(width * min(1.0, watched.step / watched.total))
        head.append(Text.assemble(("━" * done, "green"), ("━" * (width - done), "dim")))
    return head + others


def _curves(watched: Watched, width: int, height: int, *, alone: bool) -> list[Text]:
    """The curves that have values, in as many columns as there is space; unless alone, they leave half of it to a picture if they can."""
    known = {key: curve for key, curve in watched.curves.items() if curve.points}
    across = max(1, min(len(known), (width + GAP) // (NARROWEST_CURVE + GAP)))
    each = min(WIDEST_CURVE, (width - GAP * (across - 1)) // across)
    deep = ceil(len(known) / across)
    rows = min(HIGHEST_CURVE, max(LOWEST_CURVE, (height if alone else height // 2) // max(1, deep) - 1))
    energies = value_range(*(known[key].points for key in SAME_AXIS if key in known))
    lines: list[Text] = []
    keys = [*known]
    for first in range(0, len(keys), across):
        if len(lines) + rows + 1 > height:
            break
        blocks = []
        for key in keys[first : first + across]:
            points = known[key].points
            low, high = (energies if key in SAME_AXIS else None) or value_range(points) or (0.0, 0.0)
            title = Text.assemble((NAMES[key], "bold"), f" {figure(key, known[key].last or 0.0)}")
            bounds = f"  {figure(key, low)} to {figure(key, high)}"
            if title.cell_len + len(bounds) <= each:
                title.append(bounds, "dim")
            blocks.append([title, *(Text(row, COLOURS[key]) for row in braille(points, each, rows, low, high, watched.step))])
        for row in zip(*blocks, strict=True):
            line = Text()
            for column, part in enumerate(row):
                line = _joined(line, column * (each + GAP), part)
            lines.append(line)
    return lines


def _picture(path: Path, width: int, height: int) -> list[Text]:
    """The newest preview below a line that says which it is; nothing where there is no space, or no readable picture."""
    if height < LOWEST_PICTURE + 1:
        return []
    pixels = preview(path, width, 2 * (height - 1))
    made = datetime.fromtimestamp(path.stat().st_mtime)
    return [] if pixels is None else [Text(f"{path.name}, {made:%H:%M:%S}", "dim"), *half_blocks(pixels)]


def _joined(line: Text, column: int, other: Text) -> Text:
    """A line, and another from a column on."""
    joined = line.copy()
    joined.truncate(column, pad=True)
    return joined.append_text(other)
