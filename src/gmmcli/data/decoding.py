"""Image files become arrays of one shape, on all cores."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gmmcli.data.reading import reading, size_of
from gmmcli.data.tree import Tree, content
from gmmcli.errors import DataError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its suffix. Pillow knows more: for EPS it starts Ghostscript."""
LARGE = 2**25
"""Pixels of an image that is decoded while no other of that kind is: a file of a few kilobytes may hold five times as many."""
ONE_LARGE = Lock()
AT_ONCE = 128  # images: of each its file and its pixels are in memory
T = TypeVar("T")


@contextmanager
def silent() -> Iterator[None]:
    """Hide what Pillow warns of: large images, odd metadata, transparency that is dropped. For all threads: it is set outside of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def decode(file: Tree | BytesIO, size: int, channels: int) -> np.ndarray:
    """Read a picture as bytes (height, width, channel): upright, the first of several frames, without transparency.

    Args:
        file: where it is, or its content.
        size: the shorter side is resized to it and the centre cropped; 0 leaves the picture as large as it is.
        channels: 1 for grey, 3 for RGB.

    Raises:
        DataError: it is not a readable image.
    """
    with silent():
        return _decoded(file, size, channels)


def _decoded(file: Tree | BytesIO, size: int, channels: int) -> np.ndarray:
    with reading(f"{file} is not a readable image", "repair or remove it"):
        return fitted(whole(file, channels), size)


def whole(file: Tree | BytesIO, channels: int) -> Image.Image:
    """Read a picture in its own size, grey or RGB. Raises whatever it meets, see ``reading``."""
    opened = _opened(file if isinstance(file, BytesIO) else BytesIO(content(file)))
    with opened, ONE_LARGE if opened.width * opened.height > LARGE else nullcontext():
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):  # convert would clip at 255
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        return image.convert("L" if channels == 1 else "RGB")


def fitted(image: Image.Image, size: int) -> np.ndarray:
    """A picture as bytes (height, width, channel), of the size that ``decode`` gives it."""
    if size and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, -1)


def is_picture(file: Tree) -> bool:
    """Whether a file begins as a picture does; what follows is not read."""
    try:
        if isinstance(file, Path):
            size_of(file)
        with _opened(file if isinstance(file, Path) else BytesIO(content(file))):
            return True
    except Exception:  # on a file from anyone, libraries raise anything
        return False


def _opened(file: BytesIO | Path) -> Image.Image:
    Image.init()
    try:
        return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise ValueError("of no format that is read") from error


def each(work: Callable[[Tree], T], files: list[Tree]) -> Iterator[T]:
    """What becomes of each file, in their order, on all cores; ``AT_ONCE`` files are worked on together."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), AT_ONCE):
            with silent():
                done = list(pool.map(work, files[start : start + AT_ONCE]))
            yield from done


@dataclass(frozen=True)
class Decoder:
    """Decodes many images alike, see ``decode``."""

    size: int
    channels: int

    def shape(self, files: list[Tree]) -> tuple[int, ...]:
        """(image, height, width, channel) of some images: where their size is kept, that of the first."""
        size, channels = self.size, self.channels
        return len(files), *((size, size, channels) if size else decode(files[0], size, channels).shape)

    def all(self, files: list[Tree], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Decode images in their order; DataError names the first that is damaged, or of another size than the first of all."""
        for file, image in zip(files, each(partial(_decoded, size=self.size, channels=self.channels), files), strict=True):
            if image.shape != shape[1:]:
                raise DataError(
                    f"{file} is {image.shape[1]} x {image.shape[0]}, {files[0]} is {shape[2]} x {shape[1]}",
                    "set data.source.size to bring all to one size",
                )
            yield image
