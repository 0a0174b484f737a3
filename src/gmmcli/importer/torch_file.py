"""Files of ``torch.save``, read without running any of their content: zip archives, and the format of torch 1.5 and earlier."""

import errno
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from math import prod
from pathlib import Path
from struct import error as struct_error
from struct import unpack
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from gmmcli.errors import CheckpointError
from gmmcli.importer.pickled import Storage, Strided, read_pickle

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The first two pickles of the older format; sys_info, the object and the keys of the storages follow."""
HINT = "give a file that torch.save wrote"
BROKEN = (zipfile.BadZipFile, struct_error, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError, TypeError)
"""What reading a damaged file raises: RuntimeError for an encrypted archive, TypeError for keys that are no list of strings."""


class TorchFile:
    """An open file: its object, and the tensors in it, each read when it is asked for.

    Attributes:
        object: dictionaries, lists, numbers and strings, with ``Strided`` for tensors and ``Record`` for layers.
        form: the format.
    """

    def __init__(self, path: Path, form: Literal["zip", "legacy"], content: Any, find: Callable[[Storage], BinaryIO]) -> None:
        self.object = content
        self.form = form
        self.size = path.stat().st_size
        self._find = find
        self._left = self.size
        self._read: set[str] = set()

    def tensor(self, strided: Strided) -> Tensor:
        """Read a tensor.

        Raises:
            CheckpointError: it reaches beyond its storage, the storage beyond the file, or the storage was another tensor's.
        """
        with _understood():
            return self._tensor(*strided)

    def _tensor(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        numel = prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else 0
        if numel > storage.numel or last >= max(storage.numel, 1):
            raise CheckpointError(f"a tensor of shape {size} reaches beyond its storage of {storage.numel:,} numbers")
        if storage.key in self._read:
            raise CheckpointError("two tensors share a storage, which no checkpoint of GMMC or JEM has")
        self._read.add(storage.key)
        self._left -= (n_bytes := storage.numel * storage.dtype.itemsize)
        if self._left < 0:
            raise CheckpointError(f"a tensor of {n_bytes:,} bytes is more than is left of the file's {self.size:,}")
        if not numel:
            return torch.empty(size, dtype=storage.dtype)
        numbers = bytearray(n_bytes)
        if self._find(storage).readinto(numbers) != n_bytes:  # type: ignore[attr-defined]  # of every binary stream
            raise CheckpointError("the file ends within a tensor")
        return torch.frombuffer(numbers, dtype=storage.dtype).as_strided(size, stride, offset)


@contextmanager
def opened(path: Path) -> Iterator[TorchFile]:
    """Open a file of ``torch.save`` for reading.

    Raises:
        CheckpointError: in the block too: the file is no such file, is damaged, or names what gmmc does not know.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}", "give the path of a checkpoint, a .pt file")
    try:
        with path.open("rb") as file:
            with _understood():
                found = _torch_file(path, file)
            yield found
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} cannot be imported: {error.message}", error.hint) from error


@contextmanager
def _understood() -> Iterator[None]:
    """Make a CheckpointError of what reading a damaged file raises."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # that of seeking to where no file can reach
            raise
        raise CheckpointError("it is damaged", HINT) from error
    except BROKEN as error:
        raise CheckpointError(f"it is damaged ({str(error)[:100]})", HINT) from error


def _torch_file(path: Path, file: BinaryIO) -> TorchFile:
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _zip(path, zipfile.ZipFile(file))
    if start[:2] == b"\x80\x02":
        return _legacy(path, file)
    raise CheckpointError("it is neither a zip archive nor a pickle", HINT)


def _zip(path: Path, archive: zipfile.ZipFile) -> TorchFile:
    """FOLDER/data.pkl holds the object, FOLDER/data/KEY a storage each."""
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise CheckpointError(f"it is a zip archive with {len(names)} files FOLDER/data.pkl, where torch.save writes one", HINT)
    folder = names[0].removesuffix("data.pkl")

    def stored(name: str) -> zipfile.ZipInfo:
        info = archive.getinfo(folder + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError("it is compressed, which torch.save never does", "unpack it")
        return info

    if folder + "byteorder" in archive.namelist() and archive.read(stored("byteorder")) != b"little":
        raise CheckpointError("it was written on a machine of another byte order")

    def find(storage: Storage) -> BinaryIO:
        info = stored(f"data/{storage.key}")
        if info.file_size != storage.numel * storage.dtype.itemsize:
            raise CheckpointError(f"a storage of {storage.numel:,} numbers has {info.file_size:,} bytes")
        return archive.open(info)  # type: ignore[return-value]  # a binary stream

    content, _ = read_pickle(BytesIO(archive.read(stored("data.pkl"))))
    return TorchFile(path, "zip", content, find)


def _legacy(path: Path, file: BinaryIO) -> TorchFile:
    """Five pickles, then each storage behind its number of elements, in the order of the keys."""
    magic, protocol, about = (read_pickle(file)[0] for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise CheckpointError("it is a pickle, but not one of torch.save", HINT)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise CheckpointError("it was written on a machine of another byte order")
    (content, storages), (keys, _) = read_pickle(file), read_pickle(file)
    places, at = dict[str, int](), file.tell()
    for key in keys:
        file.seek(at)
        (numel,) = unpack("<q", file.read(8))
        if numel != storages[key].numel:
            raise CheckpointError(f"a storage of {storages[key].numel:,} numbers has {numel:,} in the file")
        places[key] = at + 8
        at += 8 + numel * storages[key].dtype.itemsize

    def find(storage: Storage) -> BinaryIO:
        file.seek(places[storage.key])
        return file

    return TorchFile(path, "legacy", content, find)
