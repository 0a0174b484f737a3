"""Files that strangers wrote: whatever a library raises on one becomes one sentence, and a .zip is read within limits."""

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gmmcli.errors import DataError, GmmcError

CLASSES = 2**16
"""Classes that a dataset may have at most."""
NAME = 1000
"""Characters that the name of a class may have at most."""
REASON = 300  # characters of what a library says
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""How members of a .zip may be compressed: Python unpacks the others without a bound on the memory that takes."""


@contextmanager
def reading(problem: str, hint: str) -> Iterator[None]:
    """Turn what is raised within into DataError ``problem (what was raised)``: on a file from anyone, libraries raise anything.

    Errors that are sentences already pass. Only what reads a file belongs inside: a mistake of our own would be told as a file's.
    """
    try:
        yield
    except GmmcError:
        raise
    except Exception as error:
        raise DataError(f"{problem} ({reason(error)})", hint) from error


def reason(error: Exception) -> str:
    """What a library says of a file, or the kind of its error where it says nothing."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return said if len(said) <= REASON else said[:REASON] + "..."


def size_of(path: Path) -> int:
    """Return the bytes of a file; ValueError where it is not a regular one: who opens a named pipe waits for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return status.st_size


def check_memory(what: str, size: int) -> None:
    """Raise DataError where something takes more bytes than the machine has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise DataError(
            f"{what} takes {size / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f} GiB of memory",
            "give fewer or smaller images",
        )


class Archive(zipfile.ZipFile):
    """A .zip, or an .npz, which is one; its members are read by ``member``."""

    def __init__(self, path: Path) -> None:
        size_of(path)  # of a regular file alone
        super().__init__(path)

    def member(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """Open a member, of which no more is read than the archive says it has; ValueError where it is encrypted or oddly compressed."""
        if info.flag_bits & 1:
            raise ValueError("encrypted")
        if info.compress_type not in METHODS:
            method = zipfile.compressor_names.get(info.compress_type, f"method {info.compress_type}")  # type: ignore[attr-defined]  # no stub
            raise ValueError(f"compressed by {method}, only stored and deflate are read")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise ValueError("damaged: stored in another size than its own")
        return self.open(info)
