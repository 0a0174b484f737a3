"""Where the images of a grid are, told in the PNG's own text, so that a reader can take them out again."""

import json
from dataclasses import asdict, astuple, dataclass
from typing import Self

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "tiles"


@dataclass(frozen=True)
class Tiles:
    """The layout of a grid; all but ``rows`` and ``columns`` in pixels."""

    left: int
    top: int
    pitch: int
    """From one image to the next."""
    side: int
    """Of an image in the grid."""
    size: int
    """Of the image itself, before it was enlarged."""
    rows: int
    columns: int

    def text(self) -> PngInfo:
        """What to save the PNG with."""
        info = PngInfo()
        info.add_text(KEY, json.dumps(asdict(self)))
        return info

    @classmethod
    def read(cls, image: Image.Image) -> Self | None:
        """The layout that a picture tells; None where it tells none, or one that it is too small for."""
        try:
            found = cls(**json.loads(image.info[KEY]))
        except (KeyError, TypeError, ValueError):
            return None
        if not all(isinstance(value, int) and value > 0 for value in astuple(found)) or not found.size <= found.side <= found.pitch:
            return None
        right, bottom = found.left + found.pitch * (found.columns - 1), found.top + found.pitch * (found.rows - 1)
        return found if max(right + found.side - image.width, bottom + found.side - image.height) <= 0 else None

    def cut(self, sheet: Image.Image) -> list[Image.Image]:
        """The images at their own size: the first column from top to bottom, then the second."""
        corners = [(self.left + self.pitch * j, self.top + self.pitch * i) for j in range(self.columns) for i in range(self.rows)]
        boxes = [(x, y, x + self.side, y + self.side) for x, y in corners]
        return [sheet.crop(box).resize((self.size, self.size), Image.Resampling.BOX) for box in boxes]
