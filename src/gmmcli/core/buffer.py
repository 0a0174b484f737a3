"""The replay buffer: where chains wait between two training steps."""

from collections.abc import Iterator
from threading import Lock
from typing import Literal

import torch

from gmmcli.core.protocols import Starts
from gmmcli.distributed import world
from gmmcli.types import Images, Labels, to_bytes, to_model

Dtype = Literal["float32", "float16", "uint8"]

PIECE = 2**24  # bytes of a snapshot that are read at a time: a step that writes meanwhile waits for that long


class ReplayBuffer:
    """Class-major storage: ``images[label, slot]``, so a chain's class is its position.

    Of several processes each has a share of every class's slots, and so serves any label.

    Attributes:
        images: shape (class, slot, channel, height, width), in the storage dtype: float32 exact, float16 half of it,
            uint8 a quarter (images rounded to bytes on every write).
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self._lock = Lock()
        self._snapshots: list[BufferSnapshot] = []

    @classmethod
    def started(cls, starts: Starts, n_classes: int, slots: int, dtype: Dtype, generator: torch.Generator) -> "ReplayBuffer":
        """This process's share of a buffer, on the generator's device, whose chains have all just set out."""
        slots = len(range(slots)[world().share(slots)])
        images = torch.empty(n_classes, slots, *starts.shape, dtype=getattr(torch, dtype), device=generator.device)
        for k, places in enumerate(images):  # class by class: the float32 draw must not double a large buffer's memory
            places.copy_(_encode(starts(torch.full((slots,), k, device=generator.device), generator), images.dtype))
        return cls(images)

    @property
    def slots(self) -> int:
        """Places per class, in this process."""
        return self.images.shape[1]

    def draw(self, labels: Labels, generator: torch.Generator) -> tuple[torch.Tensor, Images]:
        """Pick a random slot of each label; return the slots and their images as float32."""
        slots = torch.randint(self.slots, labels.shape, generator=generator, device=self.images.device)
        return slots, decode(self.images[labels, slots])

    def write(self, labels: Labels, slots: torch.Tensor, images: Images) -> None:
        """Put images back where their chains came from; of two chains in one slot the later stays."""
        places, order = labels * self.slots + slots, torch.arange(len(labels), device=labels.device)
        last = torch.where(places[:, None] == places, order, -1).amax(1)  # torch leaves it to its threads which duplicate wins
        with self._lock:
            for snapshot in self._snapshots:
                snapshot.keep(places)
            self.images[labels, slots] = _encode(images, self.images.dtype)[last]

    def snapshot(self) -> "BufferSnapshot":
        """Begin to hold the images as they are now; until the snapshot is closed, a write keeps what it replaces."""
        snapshot = BufferSnapshot(self.images, self._lock, self._snapshots)
        self._snapshots.append(snapshot)
        return snapshot


class BufferSnapshot:
    """The images of a buffer as they were at one moment; another thread may read them while chains write.

    To copy a large buffer would stop the training for a second, and double its memory; chains write a few places a step.
    """

    def __init__(self, images: torch.Tensor, lock: Lock, open_ones: "list[BufferSnapshot]") -> None:
        self.shape, self.dtype = images.shape, images.dtype
        self._places = images.flatten(0, 1)
        self._lock, self._open_ones = lock, open_ones
        self._replaced: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(self, places: torch.Tensor) -> None:
        """Keep the images at these places, counted over all classes: they are about to be replaced."""
        self._replaced.append((places, self._places[places]))

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the images in order, many consecutive places at a time: shape (place, channel, height, width). Once only."""
        rows = max(1, PIECE // self._places[0].nbytes)
        held: dict[int, torch.Tensor] = {}
        for begin in range(0, len(self._places), rows):
            with self._lock:
                piece, replaced = self._places[begin : begin + rows].clone(), self._replaced.copy()
                self._replaced.clear()
            for places, images in replaced:
                for place, image in zip(places.tolist(), images, strict=True):
                    held.setdefault(place, image)  # only the first write to a place replaced the image of that moment
            for place in [place for place in held if begin <= place < begin + len(piece)]:
                piece[place - begin] = held.pop(place)
            yield piece

    def close(self) -> None:
        """Let writes keep nothing more; nothing can be read afterwards."""
        with self._lock:
            self._open_ones.remove(self)


def joined(shards: list[torch.Tensor]) -> torch.Tensor:
    """Join the images of several processes along their slots; one alone is not copied."""
    return shards[0].contiguous() if len(shards) == 1 else torch.cat(shards, 1)


def decode(stored: torch.Tensor) -> torch.Tensor:
    """Stored images of any leading axes as float32 in the model range."""
    return to_model(stored) if stored.dtype == torch.uint8 else stored.float()


def _encode(images: Images, dtype: torch.dtype) -> torch.Tensor:
    return to_bytes(images) if dtype == torch.uint8 else images.to(dtype)
