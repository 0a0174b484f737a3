"""Pictures as addresses, so that the page holds them itself."""

import base64
import io

import numpy as np
from PIL import Image


def png(pixels: np.ndarray) -> str:
    """An image of shape (height, width, channel) as a data address."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG", optimize=True)
    return address(file.getvalue())


def address(content: bytes) -> str:
    """The content of a PNG file as a data address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
