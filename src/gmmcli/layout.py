"""Plain text for a terminal of any width, and for a pipe: sentences that are broken between words, and tables."""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gmmcli.errors import visible

GAP, INDENT = "  ", "  "
"""Between two columns, and before what goes on."""
NARROWEST = 24
"""Columns of a terminal that sentences get at least beside other cells; with fewer they stand below them."""


@dataclass
class Table:
    """Rows of cells, the first of which says what the row is about: in columns, or row below row where a terminal is too narrow."""

    columns: Sequence[str] = ()
    """Headings, where there are any."""
    rows: list[Sequence[str]] = field(default_factory=list)
    sentences: bool = False
    """Whether the last column holds sentences, which may be broken."""

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)

    def lines(self, width: int | None) -> list[str]:
        """Lay it out in lines of at most this width, words that are longer apart; None for any width."""
        if not self.rows:
            return []
        rows = [[visible(cell) for cell in row] for row in ([self.columns] if self.columns else []) + self.rows]
        *sizes, last = (max(map(columns_of, column)) for column in zip(*rows, strict=True))
        beside = sum(sizes) + len(GAP) * len(sizes)
        if width is None or beside + last <= width or (self.sentences and beside + NARROWEST <= width):
            return [line for row in rows for line in _side_by_side(row, sizes, width)]
        several = len(self.columns) > 2  # one value alone needs no heading in each row
        headings, below = (rows[0], rows[1:]) if several else ([""] * len(rows[0]), rows)
        return [line for row in below for line in _below(row, headings, width)]


Part = str | Path | Table


def lines(parts: Iterable[Part], width: int | None) -> list[str]:
    """Lay out sentences, paths, which are never broken, and tables, between empty lines."""
    found: list[str] = []
    for part in parts:
        if isinstance(part, Table):
            found += ["", *part.lines(width), ""]
        else:
            found += [_path(part, width)] if isinstance(part, Path) else flowing(visible(part).split(" "), width)
    return "\n".join(line for line, before in zip(found, ["", *found], strict=False) if line or before).rstrip("\n").split("\n")


def _path(path: Path, width: int | None) -> str:
    """A path exactly as it is for a pipe, and to a terminal what that would obey as escapes."""
    return str(path) if width is None else visible(str(path))


def show(*parts: Part) -> None:
    """Print on stdout; nothing for nothing."""
    if text := "\n".join(lines(parts, width_of(sys.stdout))):
        print(text)


def fitted(sentence: str, stream: TextIO) -> str:
    """Return a sentence as it is printed on a stream."""
    return "\n".join(flowing(visible(sentence).split(" "), width_of(stream)))


def width_of(stream: TextIO) -> int | None:
    """The width of the terminal that a stream is; None for a file or a pipe, whose lines are not broken."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def flowing(units: Iterable[str], width: int | None, gap: str = " ", indent: str = "") -> list[str]:
    """Set units, none of which is broken, one after another in lines."""
    first, *others = units
    found = [indent + first]
    for unit in others:
        longer = found[-1] + gap + unit
        if width is None or columns_of(longer) <= width:
            found[-1] = longer
        else:
            found.append(indent + unit)
    return found


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _side_by_side(row: Sequence[str], sizes: Sequence[int], width: int | None) -> list[str]:
    """A row in columns; what the last one has no space for goes on below it."""
    *cells, last = row
    before = "".join(cell + " " * (size - columns_of(cell)) + GAP for cell, size in zip(cells, sizes, strict=True))
    first, *others = flowing(last.split(" "), width and width - columns_of(before))
    found = [(before + first).rstrip(), *(" " * columns_of(before) + line for line in others)]
    if width is None or max(map(columns_of, found)) <= width:
        return found
    return [*_below(row, [""] * len(row), width)]  # with a word that has no space there


def _below(row: Sequence[str], headings: Sequence[str], width: int) -> Iterator[str]:
    """A row as its first cell above the others, each with its heading."""
    first, *others = [f"{heading}: {cell}" if heading and cell else cell for heading, cell in zip(headings, row, strict=True)]
    cells = [cell for cell in others if cell]
    if first or not cells:
        yield from flowing(first.split(" "), width)
    indent = INDENT + " " * (len(first) - len(first.lstrip()))
    for line in flowing(cells, width, GAP, indent) if cells else ():
        if columns_of(line) <= width:
            yield line
        else:  # a single cell: broken behind its heading, or between words
            heading, colon, value = line.strip().partition(": ")
            whole = colon and max(columns_of(heading), columns_of(INDENT + value)) < width - len(indent)
            part, *parts = flowing([f"{heading}:", value] if whole else line.split(), width - len(indent + INDENT))
            yield from (indent + part, *(indent + INDENT + part for part in parts))
