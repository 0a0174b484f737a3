"""Files on the web, known by their size and sha256: announced before they are fetched, and checked before they are opened."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from gmmcli.data.reading import reading, size_of
from gmmcli.errors import DataError
from gmmcli.progress import ProgressBar, say
from gmmcli.storage import replacing

OFFLINE = "GMMC_OFFLINE"
"""The environment variable that forbids downloads, unless it is empty or 0; ``gmmc --offline`` sets it."""
TIMEOUT = 60.0
"""Seconds that a server may be silent."""
PIECE = 2**20  # bytes


class RemoteFile(NamedTuple):
    """A file as it was published."""

    url: str
    place: str
    """Its path below the folder of all data."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Published:
    """A set of images by the files that its makers publish; ``root`` is the folder of all data."""

    name: str
    files: tuple[RemoteFile, ...]
    shape: tuple[int, int, int]
    """(channel, height, width) of its images."""
    n_train: int
    n_test: int

    @property
    def megabytes(self) -> str:
        """The size of all files, to be read."""
        return f"{sum(file.size for file in self.files) / 1e6:,.0f} MB"

    def absent(self, root: Path) -> list[RemoteFile]:
        """The files that are not on disk."""
        return [file for file in self.files if not (root / file.place).exists()]

    def command(self, root: Path) -> str:
        """The command that downloads the set."""
        return f"gmmc data download {self.name}" + (f" --root {root}" if root != Path("data") else "")

    def contents(self, root: Path) -> Iterator[bytes]:
        """Yield the content of each file, in order, after downloading those that are not on disk.

        Only content of the published size and sha256 is handed out, whoever put the file there.

        Raises:
            DataError: a file cannot or may not be downloaded, or is damaged.
        """
        self.fetch(self.absent(root), root)
        for file in self.files:
            yield self._content(file, root)

    def download(self, root: Path, quiet: bool = False) -> list[RemoteFile]:
        """Download the files that are absent or damaged, and return them."""
        wanted = self.wanted(root)
        self.fetch(wanted, root, quiet)
        return wanted

    def wanted(self, root: Path) -> list[RemoteFile]:
        """The files that are absent or damaged."""
        return [file for file in self.files if not self._is_sound(file, root)]

    def fetch(self, files: Iterable[RemoteFile], root: Path, quiet: bool = False) -> None:
        """Download files, in place of what is there; unless quiet say from where, and how far it is.

        Raises:
            DataError: that is forbidden or fails, or what arrives is not what was published.
        """
        for file in files:
            if os.environ.get(OFFLINE, "") not in ("", "0"):
                raise self._missing(root, f"may not be downloaded: --offline or {OFFLINE} forbids it")
            try:
                self._fetch(file, root / file.place, quiet)
            except _NetworkError as error:
                raise self._missing(root, f"could not be downloaded ({error})") from error

    def _content(self, file: RemoteFile, root: Path) -> bytes:
        path = root / file.place
        again = f"`{self.command(root)}` fetches it again"
        with reading(f"{path} cannot be read", again):
            size = size_of(path)
            content = path.read_bytes() if size == file.size else b""
        if size != file.size:
            raise DataError(f"{path} is damaged: it has {size:,} bytes, not {file.size:,}", again)
        if (found := sha256(content).hexdigest()) != file.sha256:
            raise DataError(f"{path} is damaged: its sha256 is {found}, not {file.sha256}", again)
        return content

    def _is_sound(self, file: RemoteFile, root: Path) -> bool:
        try:
            return bool(self._content(file, root))
        except DataError:
            return False

    def _fetch(self, file: RemoteFile, path: Path, quiet: bool) -> None:
        with ProgressBar(path.name, round(file.size / 1e6), quiet, unit="MB") as bar:
            if not quiet:
                say(f"gmmc: downloading {self.name}: {file.size:,} bytes from {file.url} to {path}")
            pieces = _pieces(file.url)
            first = next(pieces, b"")  # the connection comes before any folder
            received, digest = 0, sha256()
            with replacing(path) as hidden, hidden.open("wb") as out:
                for piece in chain([first], pieces):
                    received += len(piece)
                    if received > file.size:
                        raise _NetworkError(f"{file.url} sends more than {file.size:,} bytes")
                    digest.update(piece)
                    out.write(piece)
                    bar.update(round(received / 1e6))
                if received < file.size:
                    raise _NetworkError(f"{file.url} sent {received:,} of {file.size:,} bytes")
                if digest.hexdigest() != file.sha256:
                    raise _NetworkError(f"what {file.url} sent is not what was published: its sha256 is {digest.hexdigest()}")

    def _missing(self, root: Path, why: str) -> DataError:
        wanted = self.wanted(root)
        places = ", ".join(f"{root / file.place} ({file.size:,} bytes)" for file in wanted)
        sources = ", ".join(f"{file.url} (sha256 {file.sha256})" for file in wanted)
        return DataError(
            f"{self.name} is not in {root} and {why}; it needs {places}", f"get {sources}; data.source.root says where they are"
        )


def published(source: Any) -> Published | None:
    """The files of a source, of a kind of sources too; None for one that needs no download."""
    return getattr(source, "published", None)


class _NetworkError(Exception):
    """A server that cannot be reached, or sends something else."""


def _pieces(url: str) -> Iterator[bytes]:
    """The content of a URL. The errors of whoever takes it, a full disk say, are not raised in here."""
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            while piece := answer.read(PIECE):
                yield piece
    except (OSError, HTTPException) as error:  # URLError is an OSError
        raise _NetworkError(str(getattr(error, "reason", None) or error or type(error).__name__)) from error
