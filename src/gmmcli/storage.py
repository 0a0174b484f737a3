"""Files that appear whole or not at all: every file that a command leaves is written this way."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

LONGEST = 200  # bytes of a stem: prefixes and suffixes come on top


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden name in the folder of ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    A reader, a crash or another process that writes the same file sees the old content or the new, never half of it. Missing folders
    are made. The hidden name ends as ``path`` does, for writers that choose the format by the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield hidden
        sync(hidden)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8."""
    with replacing(path) as hidden:
        hidden.write_text(text, encoding="utf-8")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz, under whatever name ``path`` is."""
    with replacing(path) as hidden, hidden.open("wb") as file:  # numpy would add .npz to another name
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no keywords but its own


def file_stem(words: str) -> str:
    """Return words as the stem of a file's name: what is no letter, digit, dot or dash becomes a dash.

    Of a long one the end becomes its hash: the longest name a file can have is 255 bytes.
    """
    stem = re.sub(r"[^\w.-]+", "-", words)
    return stem if len(stem.encode()) <= LONGEST else f"{stem[:40]}-{sha256(stem.encode()).hexdigest()[:16]}"


def sync(path: Path) -> None:
    """Make sure that a file's content, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
