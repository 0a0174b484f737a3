"""How files are written: atomically, except logs, which grow by lines."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from math import isfinite
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from gmmcli.errors import DataError, RunError, StorageError, quoted

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = r"\.(\d{1,10})-[0-9a-f]{16}-.+"  # the hidden names of ``replacing``: of which process
DEEPEST = 100  # folders of an output's path: to make them, Python recurses
SCHEMA = 1  # of provenance.json, results and answers; it will be 2 when an older gmmc would misread them
LONGEST = 200  # bytes of a stem: prefixes and suffixes come on top


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/gmmc, or ~/.cache/gmmc."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmmc"
    except RuntimeError as error:
        raise DataError(
            f"there is no home folder to keep images in ({error})", "set XDG_CACHE_HOME to a folder that can be written"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden name in the folder of ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    A reader, a crash or another process that writes the same file sees the old content or the new, never half of it. Missing folders
    are made. The hidden name ends as ``path`` does, for writers that choose the format by the suffix; nobody can have planted a link of
    that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{os.getpid()}-{token_hex(8)}-{path.name}")
    hidden.touch(exist_ok=False)
    try:
        yield hidden
        sync(hidden)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    sync(path.parent)


def open_lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> IO[str]:
    """Open a file to lock it; its content stays, and a link of that name, which anyone may have planted, is not followed.

    Raises:
        StorageError: it is a link, or no regular file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StorageError(f"{path} is a link, or no regular file", "remove it: a lock is a file of its own")
    return os.fdopen(os.open(path, flags | os.O_NOFOLLOW, 0o666))


def is_file(path: Path) -> bool:
    """Whether this is a file; not one where no file can have such a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_writable(path: Path) -> None:
    """StorageError where no file can be written at this path; a file without a name is made and goes, and missing folders are not made."""
    if len(path.parts) > DEEPEST:
        raise StorageError(f"{path} is {len(path.parts):,} folders deep", f"choose a place at most {DEEPEST} deep")
    folder = path if path.is_dir() else path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise StorageError(f"{path}: {folder} is a file, not a folder", "choose another place")
    try:
        TemporaryFile(dir=folder).close()  # os.access says yes to root, and of /proc
    except OSError as error:
        raise StorageError(f"{path}: {folder} takes no files: {error.strerror}", "choose a folder that you may write to") from error


def placed(out: Path | None, usual: Path) -> Path:
    """Return where to write: ``out``, or in it under the usual name if it is a folder, or else the usual place."""
    if out is None:
        return usual
    return out / usual.name if out.is_dir() else out


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8."""
    with replacing(path) as hidden:
        hidden.write_text(text, encoding="utf-8")


def write_arrays(path: Path, **arrays: "np.ndarray") -> None:
    """Write a compressed .npz, under whatever name ``path`` is."""
    import numpy as np  # a tenth of a second that the list of runs can do without

    with replacing(path) as hidden, hidden.open("wb") as file:  # numpy would add .npz to another name
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no keywords but its own


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of one JSON object; RunError where it holds anything else, or what a later gmmc wrote."""
    if path.exists() and not path.is_file():  # who opens a named pipe waits for ever
        raise RunError(f"{path} is damaged: it is not a regular file", "remove it, or restore it from a copy")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}", "remove it, or restore it from a copy") from error
    if not isinstance(document, dict):
        raise RunError(f"{path} is damaged: it does not hold a JSON object", "remove it, or restore it from a copy")
    if document.get("schema", SCHEMA) != SCHEMA:
        raise RunError(
            f"{path} has schema {quoted(document['schema'])}, and this gmmc reads {SCHEMA}", "update gmmc to the version that wrote it"
        )
    return document


def finite(value: Any) -> Any:
    """Return a JSON value with null for every number that is not finite: JSON has no word for those."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def append_json(path: Path, document: dict[str, Any]) -> None:
    """Append one JSON object as a line of its own, also after a line that a crash cut short."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(document).encode() + b"\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a file of JSON lines, in order, without lines that a crash cut short or damaged; none where there is no file."""
    objects = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        with suppress(ValueError, RecursionError):
            objects.append(json.loads(line))
    return [line for line in objects if isinstance(line, dict)]


def file_stem(words: str) -> str:
    """Return words as the stem of a file name: characters other than letters, digits, dots and dashes become dashes.

    In a long stem the end is replaced by a hash: file names are limited to 255 bytes.
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
