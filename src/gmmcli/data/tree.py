"""Folders of image files, on disk or in a .zip: what is in them, and what a file holds."""

import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import NamedTuple
from zipfile import ZipInfo

from gmmcli.data.reading import Archive, reading, size_of
from gmmcli.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FILE_BYTES = 2**28
"""Bytes that the file of an image may have at most."""
DEPTH = 100
"""Folders that may lie within one another."""
CHECK = "check its permissions"
Ignored = list[tuple[str, str]]
"""What is not read: why, and where it is."""


@dataclass
class Node:
    """A folder of a .zip."""

    folders: dict[str, "Node"] = field(default_factory=dict)
    files: dict[str, ZipInfo] = field(default_factory=dict)


class Index(Archive):
    """A .zip as a tree, from one pass over its names; those that would lead out of it, and its links, are passed over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lock = Lock()  # an open zip is one file handle
        self.root = Node()
        self.ignored: Ignored = []
        for info in self.infolist():
            parts = [part for part in info.filename.split("/") if part not in ("", ".")]
            if info.filename.startswith("/") or ".." in parts:
                self.ignored.append(("names that lead out of the .zip", info.filename))
            elif stat.S_ISLNK(info.external_attr >> 16):
                self.ignored.append(("links in the .zip", info.filename))
            elif len(parts) > DEPTH + 1:
                raise ValueError(f"a file more than {DEPTH} folders deep")
            else:
                folders = parts if info.is_dir() else parts[:-1]
                node = self.root
                for part in folders:
                    node = node.folders.setdefault(part, Node())
                if parts and not info.is_dir():
                    node.files[parts[-1]] = info


@dataclass(frozen=True)
class Zipped:
    """A folder or a file in a .zip."""

    index: Index
    what: Node | ZipInfo
    at: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.at).name

    def __str__(self) -> str:
        return f"{self.index.filename}/{self.at}".rstrip("/")


Tree = Path | Zipped


class Listing(NamedTuple):
    """What is in a folder, each by name, and the entries that are neither."""

    folders: list[Tree]
    images: list[Tree]
    ignored: Ignored


def listed(folder: Tree) -> Listing:
    """Read the names in a folder; DataError where that is forbidden. Links count as what they lead to."""
    with reading(f"{folder} cannot be read", CHECK):
        listing = Listing([], [], [])
        for entry, is_folder in sorted(_entries(folder), key=lambda pair: pair[0].name):
            suffix = PurePosixPath(entry.name).suffix.lower()
            if entry.name.startswith((".", "__") if is_folder else "."):
                listing.ignored.append(("hidden", str(entry)))
            elif is_folder:
                listing.folders.append(entry)
            elif suffix in SUFFIXES:
                listing.images.append(entry)
            else:
                listing.ignored.append((suffix or "without a suffix", str(entry)))
        return listing


def _entries(folder: Tree) -> list[tuple[Tree, bool]]:
    if isinstance(folder, Path):
        return [(entry, entry.is_dir()) for entry in folder.iterdir()]
    assert isinstance(folder.what, Node)
    at = f"{folder.at}/".lstrip("/")
    inside: list[tuple[str, Node | ZipInfo]] = [*folder.what.folders.items(), *folder.what.files.items()]
    return [(Zipped(folder.index, what, at + name), isinstance(what, Node)) for name, what in inside]


def images_below(root: Tree) -> list[Tree]:
    """Return all images, each folder's own before those of the folders in it.

    Links are followed, out of the tree too, but no folder is read twice, nor one that contains the tree.
    """
    images: list[Tree] = []
    seen = {_identity(folder) for folder in root.resolve().parents} if isinstance(root, Path) else set()
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if depth > DEPTH:
            raise DataError(f"{folder} is more than {DEPTH} folders deep", "move its images up, or remove it")
        if isinstance(folder, Path):
            if (identity := _identity(folder)) in seen:
                continue
            seen.add(identity)
        listing = listed(folder)
        images += listing.images
        waiting += [(inner, depth + 1) for inner in reversed(listing.folders)]
    return images


def _identity(folder: Path) -> tuple[int, int]:
    with reading(f"{folder} cannot be read", CHECK):
        status = folder.stat()
        return status.st_dev, status.st_ino


def content(file: Tree) -> bytes:
    """Read a file; ValueError where it is too large, or not a regular one."""
    size = size_of(file) if isinstance(file, Path) else _info(file).file_size
    if size > FILE_BYTES:
        raise ValueError(f"it has {size:,} bytes, and an image may have {FILE_BYTES:,}")
    if isinstance(file, Path):
        return file.read_bytes()
    with file.index.lock, file.index.member(_info(file)) as member:
        return member.read()


def stamp(file: Tree) -> str:
    """Return what changes when a file does."""
    if isinstance(file, Zipped):
        return str(_info(file).CRC)
    with suppress(OSError):  # a link that leads nowhere: decoding says so
        status = file.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    return ""


def _info(file: Zipped) -> ZipInfo:
    assert isinstance(file.what, ZipInfo)
    return file.what
