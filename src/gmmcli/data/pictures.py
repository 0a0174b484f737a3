"""Image files: grids with labels, single pictures."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gmmcli.data.tiles import Tiles
from gmmcli.errors import shortened, visible
from gmmcli.storage import replacing
from gmmcli.types import Images, to_bytes

GAP, BETWEEN = 4, 24
"""Pixels between images, and between groups of them."""
HEADING, FOOT = 26, 28
"""Pixels of the line above a grid, and of the one below."""
LONGEST_LABEL = 60
INK, PAPER = 20, 245
Row = tuple[str, *tuple[Images, ...]]
"""A label, and groups of images."""


def to_arrays(images: Images) -> np.ndarray:
    """Model-range images as bytes (image, height, width, channel)."""
    array: np.ndarray = to_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
    return array


def save_image(array: np.ndarray, path: Path) -> None:
    """Write one byte image (height, width, channel), grey or RGB by its channels."""
    with replacing(path) as hidden:
        Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(hidden)


def save_grid(rows: Sequence[Row], path: Path, caption: str = "", cell: int = 48, headings: Sequence[str] = ()) -> list[Path]:
    """Write rows of images, each row with its label at the left, and a caption below; return the path, as a list.

    Small images are enlarged by whole factors without smoothing, to about ``cell`` pixels: what one sees are the pixels.

    Args:
        rows: labels and images; of several groups of images the second one stands to the right of the first.
        path: where to write.
        caption: a line below.
        cell: see above.
        headings: what stands above each group.
    """
    arrays = [(shortened(visible(label), LONGEST_LABEL), [to_arrays(images) for images in groups]) for label, *groups in rows]
    columns = [max(map(len, group)) for group in zip(*(groups for _, groups in arrays), strict=True)]
    caption, headings = visible(caption), [*map(visible, headings)] or [""] * len(columns)
    size = arrays[0][1][0].shape[1]
    scale = max(1, round(cell / size))
    pitch = size * scale + GAP
    font = ImageFont.load_default(14)
    margin = 10 + max(round(font.getlength(label)) for label, _ in arrays)
    widths = [max(pitch * n, round(font.getlength(heading))) for n, heading in zip(columns, headings, strict=True)]
    top, lefts = GAP + HEADING * any(headings), [*accumulate(widths, lambda left, width: left + width + BETWEEN, initial=margin)]
    width = max(lefts[-1] - BETWEEN, 20 + round(font.getlength(caption)))
    sheet = Image.new("RGB", (width, top + pitch * len(arrays) + (FOOT - GAP if caption else 0)), (PAPER,) * 3)
    draw = ImageDraw.Draw(sheet)
    for left, heading in zip(lefts, headings, strict=False):
        draw.text((left, HEADING // 2), heading, fill=INK, font=font, anchor="lm")
    for row, (label, groups) in enumerate(arrays):
        draw.text((5, top + row * pitch + size * scale // 2), label, fill=INK, font=font, anchor="lm")
        for left, array in zip(lefts, groups, strict=False):
            for column, image in enumerate(array):
                picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
                sheet.paste(picture.resize((size * scale,) * 2, Image.Resampling.NEAREST), (left + column * pitch, top + row * pitch))
    draw.text((5, sheet.height - FOOT // 2), caption, fill=INK, font=font, anchor="lm")
    tiles = Tiles(margin, top, pitch, size * scale, size, len(arrays), columns[0])
    with replacing(path) as hidden:
        sheet.save(hidden, pnginfo=tiles.text() if len(columns) == 1 else None)  # which other formats pass over
    return [path]


def save_moving(frames: Sequence[Images], path: Path, milliseconds: int, cell: int = 96) -> None:
    """Write a moving picture (GIF or WebP), to the last frame and back; each frame's images are in a row, enlarged as in a grid."""
    pictures = []
    for images in frames:
        array = to_arrays(images)
        row = np.concatenate([*array], axis=1)
        scale = max(1, round(cell / array.shape[1]))
        picture = Image.fromarray(row.squeeze(-1) if row.shape[-1] == 1 else row)
        pictures.append(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST))
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    with replacing(path) as hidden:
        there_and_back[0].save(hidden, save_all=True, append_images=there_and_back[1:], duration=milliseconds, loop=0)


def wrapped(label: str, columns: int, *groups: Images) -> list[Row]:
    """Break one class's images into rows of a grid; only the first row carries the label."""
    starts = range(0, max(map(len, groups)), columns)
    return [("" if i else label, *(images[i : i + columns] for images in groups)) for i in starts]
