"""The arrays of an .npz: a header is checked before anything is allocated, and no array is read that nobody asks for."""

import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipInfo

import numpy as np

from gmmcli.data.reading import Archive, check_memory

HEADER = 10_000
"""Bytes that the header of an array may have at most; numpy's own limit, and it writes 128."""
PIECE = 2**20


class Header(NamedTuple):
    """What the archive and the array's own header say of it."""

    info: ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int
    """Where in the member the numbers start."""


class Arrays(Archive):
    """The arrays of an .npz, of numbers and texts: nothing is unpickled. Methods raise whatever they meet, see ``reading``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self._members = {info.filename.removesuffix(".npy"): info for info in self.infolist()}
        self._counts = Counter(info.filename.removesuffix(".npy") for info in self.infolist())

    def __contains__(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self._members

    @property
    def names(self) -> list[str]:
        """The names of all arrays, sorted."""
        return sorted(self._members)

    def header(self, name: str) -> Header:
        """Read what an array is; ValueError unless its member has just the size that follows, of plain numbers or texts."""
        if (count := self._counts[name]) != 1:
            raise ValueError(f"it has {count or 'no'} arrays {name!r}")
        info = self._members[name]
        with self.member(info) as member, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            head = BytesIO(member.read(HEADER))
            major, _ = np.lib.format.read_magic(head)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(head)
        if dtype.hasobject:
            raise ValueError(f"Object arrays are pickles, which are never read: {name}")
        if not dtype.itemsize or min(shape, default=1) < 0 or head.tell() + prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{name} is {dtype} of shape {shape}, which does not take the {info.file_size - head.tell()} bytes it has")
        return Header(info, shape, dtype, fortran, head.tell())

    def __getitem__(self, name: str) -> np.ndarray:
        """Read an array that fits in memory."""
        check_memory(f"{self.path}: {name}", self.header(name).info.file_size)
        with self.member(self._members[name]) as member, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        return array

    def mapped(self, name: str) -> np.ndarray | None:
        """Map an array of bytes where it stands; None where it is compressed."""
        info, shape, dtype, fortran, start = self.header(name)
        if info.compress_type != ZIP_STORED:
            return None
        with self.path.open("rb") as file:
            file.seek(info.header_offset + 26)  # the member's own header: 30 bytes, of which the last four tell what follows them
            offset = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + start
        return np.memmap(self.path, dtype, "r", offset, shape, "F" if fortran else "C")

    def pieces(self, name: str) -> Iterator[bytes]:
        """Unpack an array piece by piece, as an .npy file; ValueError where there is less of it than there should be."""
        info = self._members[name]
        left = info.file_size
        with self.member(info) as member:
            while piece := member.read(PIECE):
                left -= len(piece)
                yield piece
        if left:
            raise ValueError(f"{name} ends {left} bytes early")
