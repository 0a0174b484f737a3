"""Files are moved out of a folder, into one beside it; nothing is deleted or replaced."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from gmmcli.errors import StorageError

SUFFIX = ".set-aside"


class Move(NamedTuple):
    """Where a file is, and where it goes; nowhere if it is left."""

    file: Path
    to: Path | None


def moves(folder: Path, files: Sequence[Path]) -> list[Move]:
    """Plan where files below a folder go: ``FOLDER.set-aside``, under the same path, with -2, -3 ... where that is taken.

    Files in a folder that a link leads to, out of ``folder``, are left where they are: they belong elsewhere.

    Raises:
        StorageError: that folder cannot be made.
    """
    aside = _beside(folder)
    taken, planned = set[Path](), list[Move]()
    for file in files:
        if file.parent.resolve().is_relative_to(folder.resolve()):
            to = next(to for to in _names(aside / file.relative_to(folder)) if to not in taken and not to.exists() and not to.is_symlink())
            taken.add(to)
            planned.append(Move(file, to))
        else:
            planned.append(Move(file, None))
    return planned


def move(one: Move) -> None:
    """Move a file as planned."""
    if one.to:
        one.to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(one.file, one.to)


def _beside(folder: Path) -> Path:
    named = folder if folder.name not in ("", "..") else folder.resolve()
    if not named.name:
        raise StorageError(f"there is no place beside {folder}", "give the folder of the images")
    aside = named.with_name(named.name + SUFFIX)
    if aside.is_symlink() or (aside.exists() and not aside.is_dir()):
        raise StorageError(f"{aside} is a link, or no folder", "rename it: what is set aside goes there")
    return aside


def _names(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
