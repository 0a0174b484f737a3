"""The cache of images that had to be decoded before they could be mapped: a file is whole or not there."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gmmcli.errors import DataError
from gmmcli.storage import replacing


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/gmmc, or ~/.cache/gmmc."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmmc"


def cached(source: str, state: str, size: int, write: Callable[[BinaryIO], None]) -> np.ndarray:
    """Map the images of a source from the cache, where they are written first if need be: by one process, while others wait.

    Args:
        source: which images, and how they were decoded; what the cache has of an earlier state of them is removed.
        state: a text that changes when the images do.
        size: bytes that they take.
        write: writes them to a file, as .npy.

    Raises:
        DataError: the cache cannot be written.
    """
    folder, name = cache_dir(), _digest(source)
    path = folder / f"{name}-{_digest(state)}.npy"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / f"{name}.lock"):
                if not path.exists():  # nobody wrote it meanwhile
                    _replace(path, name, size, write)
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise DataError(
            f"the images cannot be kept in {folder} ({error})", "make room there, or set XDG_CACHE_HOME to a folder on a larger disk"
        ) from error


def _replace(path: Path, name: str, size: int, write: Callable[[BinaryIO], None]) -> None:
    """Write a file in place of what is there of an earlier state, or hidden: what a killed process left."""
    for old in path.parent.glob(f"*{name}-*.npy"):
        old.unlink()
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(f"{size / 2**30:.1f} GiB are needed")
    with replacing(path) as hidden, hidden.open("wb") as file:
        write(file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; that of a killed process is released."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"gmmc: waiting for another process that writes {path.with_suffix('')}-*.npy\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
