"""Image files become arrays of one shape, on all cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gmmcli.data.reading import reading
from gmmcli.data.tree import Tree, content
from gmmcli.errors import DataError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its suffix. Pillow knows more: for EPS it starts Ghostscript."""
AT_ONCE = 128  # images: of each its file and its pixels are in memory


@dataclass(frozen=True)
class Decoder:
    """Brings images to size x size, or leaves them as they are if that is 0, and to grey or RGB."""

    size: int
    channels: int
    faults: int = 1
    """How many images that will not do are named, at most."""

    def one(self, file: Tree) -> np.ndarray:
        """Decode an image (height, width, channel): upright, the first of several frames, without transparency."""
        return self.decode(lambda: content(file), str(file))

    def decode(self, read: Callable[[], bytes], name: str) -> np.ndarray:
        """Decode as ``one`` does what ``read`` returns, which is called ``name``; DataError where it is no image."""
        with reading(f"{name} is not a readable image", "repair or remove it"), self._opened(read()) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):  # convert would clip at 255
                image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
            image = image.convert("L" if self.channels == 1 else "RGB")
            if self.size and image.size != (self.size, self.size):
                image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
            return np.asarray(image).reshape(image.height, image.width, self.channels)

    def shape(self, files: list[Tree]) -> tuple[int, ...]:
        """(image, height, width, channel) of some images: where their size is kept, that of the first."""
        return len(files), *((self.size, self.size, self.channels) if self.size else self.one(files[0]).shape)

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
            return self.one(file)
        except DataError as error:
            return error

    def _opened(self, content: bytes) -> Image.Image:
        Image.init()
        try:
            return Image.open(BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
        except UnidentifiedImageError as error:
            raise ValueError("of no format that is read") from error


def _together(faults: dict[Tree, DataError]) -> DataError:
    """The error of the first file, which names the others by folder and name."""
    first, *others = faults
    error = faults[first]
    if not others:
        return error
    names = ", ".join("/".join(str(file).split("/")[-2:]) for file in others)
    return DataError(f"{error.message}; {len(others)} more will not do: {names}", error.hint)
