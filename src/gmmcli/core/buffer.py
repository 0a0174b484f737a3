"""The replay buffer: where chains wait between two training steps."""

from typing import Literal

import torch

from gmmcli.core.protocols import Starts
from gmmcli.distributed import world
from gmmcli.types import Images, Labels, to_bytes, to_model

Dtype = Literal["float32", "float16", "uint8"]


class ReplayBuffer:
    """Class-major storage: ``images[label, slot]``, so a chain's class is its position.

    Of several processes each has a share of every class's slots, and so serves any label.

    Attributes:
        images: shape (class, slot, channel, height, width), in the storage dtype: float32 exact, float16 half of it,
            uint8 a quarter (images rounded to bytes on every write).
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

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
        self.images[labels, slots] = _encode(images, self.images.dtype)[last]


def decode(stored: torch.Tensor) -> torch.Tensor:
    """Stored images of any leading axes as float32 in the model range."""
    return to_model(stored) if stored.dtype == torch.uint8 else stored.float()


def _encode(images: Images, dtype: torch.dtype) -> torch.Tensor:
    return to_bytes(images) if dtype == torch.uint8 else images.to(dtype)
