"""Images larger than memory: rows of a memory map."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gmmcli.types import RawImages

CPU = torch.device("cpu")
IN_MEMORY = 2**30
"""Bytes of images that a split may have to be kept in memory."""


def in_memory(image_bytes: int) -> int:
    """Return how many images of this many bytes are kept in memory, and on the training's device; larger splits are mapped."""
    return max(1, IN_MEMORY // image_bytes)


@dataclass(frozen=True, eq=False)
class Mapped:
    """Byte images (image, channel, height, width) in a file: indexed like a tensor, they are read when they are asked for."""

    file: Tensor
    """The memory map, shape (place, height, width, channel)."""
    rows: Tensor
    """The place of each image."""
    device: torch.device = CPU
    """Where images are put when they are read."""

    @classmethod
    def whole(cls, array: np.ndarray) -> "Mapped":
        """All images of a memory-mapped array (image, height, width[, channel])."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and nobody writes to it
            file = torch.from_numpy(array[..., None] if array.ndim == 3 else array)
        return cls(file, torch.arange(len(file)))

    @classmethod
    def joined(cls, parts: "Sequence[RawImages | Mapped]") -> "Mapped | None":
        """Parts of one file, one after the other; None where they are not all of one."""
        first = parts[0]
        rows = [part.rows for part in parts if isinstance(part, Mapped) and isinstance(first, Mapped) and part.file is first.file]
        return replace(first, rows=torch.cat(rows)) if isinstance(first, Mapped) and len(rows) == len(parts) else None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(image, channel, height, width)."""
        _, height, width, channels = self.file.shape
        return len(self), channels, height, width

    def __getitem__(self, indices: Tensor | slice) -> RawImages:
        """Read the images at these positions."""
        rows = self.rows[indices if isinstance(indices, slice) else indices.cpu()]
        return self.file.index_select(0, rows).permute(0, 3, 1, 2).contiguous().to(self.device)

    def select(self, indices: Tensor) -> "Mapped":
        """The images at these positions, none of them read."""
        return replace(self, rows=self.rows[indices])

    def to(self, device: torch.device) -> "Mapped":
        """The same images, put on a device when they are read."""
        return replace(self, device=device)
