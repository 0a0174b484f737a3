"""Pictures of half blocks: a character is two pixels, the upper in its own colour, the lower in that behind it."""

from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from gmmcli.data.tiles import Tiles

SMALLEST = 8
"""Pixels of a tile: less shows nothing."""


def preview(path: Path, width: int, height: int) -> np.ndarray | None:
    """Read a preview so that it fits into so many pixels; None where it cannot be read.

    Of a grid whose file tells where its images are, whole images are laid out anew, the first of each class before the second ones, as
    large as all classes fit, but never enlarged. Of another picture the whole is made smaller.

    Returns:
        Bytes of shape (height, width, 3), at most as large as asked for.
    """
    try:
        with Image.open(path) as image:
            tiles, sheet = Tiles.read(image), image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # SyntaxError is how Pillow tells of a broken PNG
        return None
    if tiles is None or min(width, height) < SMALLEST:
        sheet.thumbnail((width, height), Image.Resampling.BOX)
        return np.asarray(sheet)
    return _laid_out(tiles.cut(sheet), tiles, width, height)


def _laid_out(images: list[Image.Image], tiles: Tiles, width: int, height: int) -> np.ndarray:
    def fit(side: int) -> tuple[int, int]:
        return (width + 1) // (side + 1), (height + 1) // (side + 1)

    sides = range(tiles.size, SMALLEST - 1, -1)
    side = next((side for side in sides if fit(side)[0] * fit(side)[1] >= tiles.rows), min(SMALLEST, tiles.size))
    across, down = fit(side)
    down = min(down, ceil(len(images) / across))
    across = min(across, ceil(len(images) / down))
    sheet = Image.new("RGB", (across * (side + 1) - 1, down * (side + 1) - 1))
    for i, image in enumerate(images[: across * down]):
        row, column = divmod(i, across)
        sheet.paste(image.resize((side, side), Image.Resampling.BOX), (column * (side + 1), row * (side + 1)))
    return np.asarray(sheet)


def half_blocks(pixels: np.ndarray) -> list[Text]:
    """Draw bytes of shape (height, width, 3), a line of text for two rows."""
    rows = [*pixels.tolist()]
    if len(rows) % 2:
        rows.append([None] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = Text()
        for over, under in zip(upper, lower, strict=True):
            line.append("▀", Style(color=Color.from_rgb(*over), bgcolor=Color.from_rgb(*under) if under else None))
        lines.append(line)
    return lines
