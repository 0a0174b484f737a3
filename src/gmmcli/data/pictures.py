"""Image files: grids with labels, single pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from gmmcli.data.tiles import Tiles
from gmmcli.errors import shortened, visible
from gmmcli.storage import replacing
from gmmcli.types import Images, to_bytes

GAP = 2
LONGEST_LABEL = 60
INK, PAPER = 20, 245


def to_arrays(images: Images) -> np.ndarray:
    """Model-range images as bytes (image, height, width, channel)."""
    array: np.ndarray = to_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
    return array


def save_image(array: np.ndarray, path: Path) -> None:
    """Write one byte image (height, width, channel), grey or RGB by its channels."""
    with replacing(path) as hidden:
        Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(hidden)


def save_grid(rows: Sequence[tuple[str, Images]], path: Path, caption: str = "", cell: int = 48) -> list[Path]:
    """Write rows of images, each row with its label at the left, and a caption below; return the path, as a list.

    Small images are enlarged by whole factors without smoothing, to about ``cell`` pixels: what one sees are the pixels.
    """
    arrays = [(shortened(visible(label), LONGEST_LABEL), to_arrays(images)) for label, images in rows]
    caption = visible(caption)
    size = arrays[0][1].shape[1]
    scale = max(1, round(cell / size))
    pitch = size * scale + GAP
    font = ImageFont.load_default(14)
    margin = 10 + max(round(font.getlength(label)) for label, _ in arrays)
    width = max(margin + pitch * max(len(a) for _, a in arrays), 20 + round(font.getlength(caption)))
    sheet = Image.new("RGB", (width, pitch * len(arrays) + (28 if caption else GAP)), (PAPER,) * 3)
    draw = ImageDraw.Draw(sheet)
    for row, (label, array) in enumerate(arrays):
        draw.text((5, row * pitch + pitch // 2), label, fill=INK, font=font, anchor="lm")
        for column, image in enumerate(array):
            picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
            sheet.paste(picture.resize((size * scale,) * 2, Image.Resampling.NEAREST), (margin + column * pitch, row * pitch + GAP))
    draw.text((5, pitch * len(arrays) + 14), caption, fill=INK, font=font, anchor="lm")
    tiles = Tiles(margin, GAP, pitch, size * scale, size, len(arrays), max(len(a) for _, a in arrays))
    with replacing(path) as hidden:
        sheet.save(hidden, pnginfo=tiles.text())  # which other formats pass over
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


def wrapped(images: Images, columns: int, label: str) -> list[tuple[str, Images]]:
    """Break one class's images into rows of a grid; only the first row carries the label."""
    return [(label if i == 0 else "", part) for i, part in enumerate(torch.split(images, columns))]
