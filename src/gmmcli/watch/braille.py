"""A curve of braille characters: each has two by four dots."""

from collections.abc import Sequence

import numpy as np

BLANK = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot: of the left and of the right column, from the top."""
FEW = 50
"""Points of which every one counts for the range; of more, the lowest and the highest hundredth may lie outside."""

Points = Sequence[tuple[int, float]]


def value_range(*curves: Points) -> tuple[float, float] | None:
    """Return the lowest and the highest value to show of curves that share an axis; None where there is no value."""
    values = [value for points in curves for _, value in points]
    if not values:
        return None
    low, high = np.quantile(values, (0.01, 0.99)) if len(values) > FEW else (min(values), max(values))
    return float(low), float(high)


def braille(points: Points, width: int, height: int, low: float, high: float, end: int) -> list[str]:
    """Draw a curve over the steps from 0 to ``end``.

    Args:
        points: at least one, by step; of those in the same column of dots the mean is drawn.
        width: in characters.
        height: in characters.
        low: the value at the bottom; what lies lower is drawn there.
        high: the value at the top.
        end: the step at the right.

    Returns:
        A string of ``width`` characters for each row, from the top.
    """
    steps, values = np.array(points, dtype=np.float64).T
    columns, rows = 2 * width, 4 * height
    places = np.clip(np.rint(steps / max(1, end) * (columns - 1)), 0, columns - 1).astype(int)
    counts = np.bincount(places, minlength=columns)
    known = np.flatnonzero(counts)
    means = np.bincount(places, weights=values, minlength=columns)[known] / counts[known]
    drawn = np.arange(known[0], known[-1] + 1)
    share = np.clip((np.interp(drawn, known, means) - low) / (high - low), 0, 1) if high > low else np.full(len(drawn), 0.5)
    heights = np.rint(share * (rows - 1)).astype(int)
    cells = np.full((height, width), BLANK)
    before = heights[0]
    for column, now in zip(drawn.tolist(), heights.tolist(), strict=True):
        for dot in range(min(before, now), max(before, now) + 1):
            row, within = divmod(rows - 1 - dot, 4)
            cells[row, column // 2] |= DOTS[column % 2][within]
        before = now
    return ["".join(map(chr, row)) for row in cells.tolist()]
