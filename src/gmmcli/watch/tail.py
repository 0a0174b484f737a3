"""The lines that a growing file has got since the last look, and curves that stay short however long it gets."""

import json
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

MOST_POINTS = 2000
"""Of a curve; a terminal shows two a column."""


class Tail:
    """Reads a file of JSON lines in parts: each look takes only what was written since the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = 0
        self._read = 0
        self._torn = b""
        self.changed_at: float | None = None
        """When the file was last written to, in seconds since 1970."""

    def look(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the objects of the lines that are new, and whether they are all: the file was replaced or cut, as a resume does.

        A last line without its end waits for the next look; lines that a crash cut short are left out.
        """
        if not self.path.is_file():
            return [], False
        with self.path.open("rb") as file:
            facts = os.fstat(file.fileno())
            self.changed_at = facts.st_mtime
            anew = facts.st_ino != self._identity or facts.st_size < self._read
            if anew:
                self._identity, self._read, self._torn = facts.st_ino, 0, b""
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        *lines, self._torn = (self._torn + new).split(b"\n")
        objects = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                objects.append(json.loads(line))
        return [one for one in objects if isinstance(one, dict)], anew


class Curve:
    """Values by step, evenly thinned where they become too many."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self.last: float | None = None
        self._every, self._seen = 1, 0

    def add(self, step: int, value: float) -> None:
        """Add the value of a later step."""
        self.last = value
        if self._seen % self._every == 0:
            self.points.append((step, value))
        self._seen += 1
        if len(self.points) > MOST_POINTS:
            self.points, self._every = list(islice(self.points, 0, None, 2)), 2 * self._every

    def forget_after(self, step: int) -> None:
        """Drop the values of later steps, which will be taken again."""
        self.points = [point for point in self.points if point[0] <= step]
