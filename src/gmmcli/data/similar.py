"""Pictures that look alike, whatever their size, compression or brightness: small grey copies of them are compared."""

import numpy as np
from PIL import Image

SIDE = 16
"""Pixels of a side of a sketch."""
ALIKE = 0.98
"""Correlation of the sketches of two pictures that look alike. Of 300 images of CIFAR-10, 98% to 100% reach it with copies of themselves:
half or twice as large, 20% brighter, or saved as JPEG of quality 50; of its first 10,000 images 28 pairs do."""
CONTRAST = 4.0
"""Standard deviation, of 256 levels, below which a sketch shows too little to be compared."""
MOST = 100_000
"""Pictures that are compared each with each other: a minute on one core."""
BLOCK = 2**22  # correlations that are in memory at a time


def sketch(picture: Image.Image) -> np.ndarray:
    """A small grey copy of a picture as a row of bytes, shape (``SIDE``², )."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1)


def alike(sketches: np.ndarray) -> np.ndarray:
    """The pairs of pictures that look alike.

    Args:
        sketches: shape (picture, ``SIDE``²), at most ``MOST``.

    Returns:
        Positions, shape (pair, 2), the smaller first.
    """
    rows = sketches.astype(np.float32)
    shown = np.flatnonzero(rows.std(1) >= CONTRAST)
    rows = rows[shown] - rows[shown].mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs, height = [np.empty((0, 2), np.int64)], max(1, BLOCK // max(1, len(rows)))
    for start in range(0, len(rows), height):
        above = np.triu(rows[start : start + height] @ rows[start:].T, 1) >= ALIKE
        pairs.append(np.argwhere(above) + start)
    return shown[np.concatenate(pairs)]
