"""A safetensors file, written piece by piece and hashed on the way: no second copy in memory, no second read from the disk."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from torch import Tensor

from gmmcli.storage import sync


class InPieces(Protocol):
    """A tensor that is read a piece at a time."""

    dtype: torch.dtype
    shape: torch.Size

    def pieces(self) -> Iterator[Tensor]:
        """Yield the tensor in order, each piece some consecutive places of its first axes."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor | InPieces], metadata: Mapping[str, str]) -> str:
    """Write a file as ``safetensors.torch.save_file`` does, sync it to disk and return its sha256."""
    ordered = {name: tensors[name] for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))}  # aligned
    contents: Iterator[bytes | memoryview] = chain([_header(ordered, metadata)], *map(_data, ordered.values()))
    digest = sha256()
    with path.open("wb") as file:
        for data in contents:
            digest.update(data)
            file.write(data)
    sync(path)
    return digest.hexdigest()


def _header(tensors: Mapping[str, Tensor | InPieces], metadata: Mapping[str, str]) -> bytes:
    """What precedes the data: its own length in 8 bytes, then JSON, filled with spaces to a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.shape.numel() * tensor.dtype.itemsize
        entries[name] = {"dtype": _dtype_name(tensor.dtype), "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


@lru_cache
def _dtype_name(dtype: torch.dtype) -> str:
    """The format's name of a dtype, as the library writes it."""
    content = safetensors.torch.save({"x": torch.empty(0, dtype=dtype)})
    name: str = json.loads(content[8:])["x"]["dtype"]
    return name


def _data(tensor: Tensor | InPieces) -> Iterator[memoryview]:
    for piece in (tensor,) if isinstance(tensor, Tensor) else tensor.pieces():
        yield piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
