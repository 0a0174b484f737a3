"""The cache of images that had to be decoded before they could be mapped: a file is whole or not there."""

import fcntl
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gmmcli.errors import DataError
from gmmcli.storage import cache_dir, open_lock, replacing


def cached(source: str, state: str, shape: tuple[int, ...], write: Callable[[BinaryIO], None]) -> np.ndarray:
    """Map the images of a source from the cache, where they are written first if need be: by one process, while others wait.

    Args:
        source: which images, and how they were decoded; what the cache has of an earlier state of them is removed.
        state: a text that changes when the images do.
        shape: that of the array, of bytes.
        write: writes them to a file, as .npy.

    Raises:
        DataError: the cache cannot be written.
        StorageError: its lock is a link, or no regular file.
    """
    folder, name = cache_dir(), _digest(source)
    path = folder / f"{name}-{_digest(state)}.npy"
    try:
        images = _whole(path, shape)
        if images is None:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / f"{name}.lock"):
                images = _whole(path, shape)  # unless somebody wrote it meanwhile
                if images is None:
                    _replace(path, name, prod(shape), write)
                    images = np.lib.format.open_memmap(path, mode="r")
        return images
    except OSError as error:
        raise DataError(
            f"the images cannot be kept in {folder} ({error.strerror or error})",
            "make room there, or set XDG_CACHE_HOME to a folder on a larger disk",
        ) from error


def _whole(path: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """Map a file; None where there is none, or not a whole one: a link was put there by somebody else."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        images = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception:  # numpy's header parser on damaged bytes
        return None
    return images if images.shape == shape and images.dtype == np.uint8 and path.stat().st_size == images.offset + images.nbytes else None


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
    with open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"gmmc: waiting for another process that writes {path.with_suffix('')}-*.npy\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
