"""Image files become arrays of one shape, on all cores."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from threading import Lock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gmmcli.data.reading import reading
from gmmcli.data.tree import Tree, content
from gmmcli.errors import DataError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its suffix. Pillow knows more: for EPS it starts Ghostscript."""
LARGE = 2**25
"""Pixels of an image that is decoded while no other of that kind is: a file of a few kilobytes may hold five times as many."""
ONE_LARGE = Lock()
AT_ONCE = 128  # images: of each its file and its pixels are in memory


def decode(file: Tree | BytesIO, size: int, channels: int) -> np.ndarray:
    """Read a picture as bytes (height, width, channel): upright, the first of several frames, without transparency.

    Args:
        file: where it is, or its content.
        size: the shorter side is resized to it and the centre cropped; 0 leaves the picture as large as it is.
        channels: 1 for grey, 3 for RGB.

    Raises:
        DataError: it is not a readable image.
    """
    with reading(f"{file} is not a readable image", "repair or remove it"):
        opened = _opened(file if isinstance(file, BytesIO) else BytesIO(content(file)))
        with opened, ONE_LARGE if opened.width * opened.height > LARGE else nullcontext():
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):  # convert would clip at 255
                image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
            image = image.convert("L" if channels == 1 else "RGB")
        if size and image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(image.height, image.width, channels)


def _opened(file: BytesIO) -> Image.Image:
    Image.init()
    try:
        return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise ValueError("of no format that is read") from error


@dataclass(frozen=True)
class Decoder:
    """Decodes many images alike, see ``decode``."""

    size: int
    channels: int
    faults: int = 1
    """How many images that will not do are named, at most."""

    def shape(self, files: list[Tree]) -> tuple[int, ...]:
        """(image, height, width, channel) of some images: where their size is kept, that of the first."""
        size, channels = self.size, self.channels
        return len(files), *((size, size, channels) if size else decode(files[0], size, channels).shape)

    def all(self, files: list[Tree], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Decode images in their order; DataError names those that are damaged, or of another size than the first."""
        faults: dict[Tree, DataError] = {}
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(files), AT_ONCE):
                part = files[start : start + AT_ONCE]
                for file, image in zip(part, pool.map(self._attempt, part), strict=True):
                    if isinstance(image, DataError):
                        faults[file] = image
                    elif image.shape != shape[1:]:
                        sizes = f"{file} is {image.shape[1]} x {image.shape[0]}, {files[0]} is {shape[2]} x {shape[1]}"
                        faults[file] = DataError(sizes, "set data.source.size to bring all to one size")
                    elif not faults:
                        yield image
                    if len(faults) == self.faults:
                        raise _together(faults)
        if faults:
            raise _together(faults)

    def _attempt(self, file: Tree) -> np.ndarray | DataError:
        try:
            return decode(file, self.size, self.channels)
        except DataError as error:
            return error


def _together(faults: dict[Tree, DataError]) -> DataError:
    """The error of the first file, which names the others by folder and name."""
    first, *others = faults
    error = faults[first]
    if not others:
        return error
    names = ", ".join("/".join(str(file).split("/")[-2:]) for file in others)
    return DataError(f"{error.message}; {len(others)} more will not do: {names}", error.hint)
