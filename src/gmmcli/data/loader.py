"""Training batches: the split on the device, or read ahead from its file, augmented image by image."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from gmmcli.data.dataset import Split
from gmmcli.data.digits import Digits
from gmmcli.data.sources import SOURCES, Source
from gmmcli.distributed import world
from gmmcli.errors import RecipeError
from gmmcli.rng import stream
from gmmcli.types import Batch, Count, Images, Labels, Natural, NonNegative, RawImages, to_model

Raw = tuple[RawImages, Labels]


@dataclass(frozen=True)
class Data:
    """The ``[data]`` table."""

    source: Annotated[Source, SOURCES] = field(default_factory=Digits)
    batch_size: Count = 64
    """Images in a training step, and as many chains; those of all processes together."""
    noise_std: NonNegative = 0.0
    """Gaussian noise on training images, in the model range."""
    crop_padding: Natural = 0
    """Reflect-pad by this many pixels, then crop at a random place, per image."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""

    def build(self, split: Split, device: torch.device, seed: int) -> "Loader":
        """Build the loader; RecipeError where the table does not fit the images."""
        if self.batch_size > len(split):
            raise RecipeError(f"data.batch_size {self.batch_size} is larger than the {len(split)} training images", "make it smaller")
        if self.crop_padding >= split.images.shape[-1]:
            raise RecipeError(
                f"data.crop_padding {self.crop_padding} does not fit images of {split.images.shape[-1]} pixels", "make it smaller"
            )
        return Loader(self, split, device, seed)


class Loader:
    """Batch number ``step`` is a function of (seed, step) and the step's generator: nothing to save for a resume."""

    def __init__(self, data: Data, split: Split, device: torch.device, seed: int) -> None:
        self.data = data
        self.device = device
        self.seed = seed
        self.steps_per_epoch = len(split) // data.batch_size
        self.split = split.to(device)
        self._source = split if split.mapped else self.split
        self._read = Ahead(self._raw) if split.mapped else self._raw
        self._epoch = -1
        self._order = torch.empty(0)

    def batch(self, step: int, generator: torch.Generator, clean: bool = False) -> Batch:
        """Return this process's share of the batch of a step (from 0): an epoch visits each image at most once, in an order of its own.

        With ``clean`` it has the images a second time, with noise of their own but neither cropped nor mirrored.
        """
        raw, labels = (placed(part, self.device) for part in self._read(step))
        images = to_model(raw)
        return Batch(self.augment(images, generator), labels, self.with_noise(images, generator) if clean else None)

    def _raw(self, step: int) -> Raw:
        """Read the bytes and labels of this process's share of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._source), generator=stream("cpu", self.seed, "epoch", epoch))
            self._order = order.to(self._source.labels.device, non_blocking=True)  # the host does not wait for the device
            self._epoch = epoch
        size = self.data.batch_size
        return self._source.batch(self._order[position * size : (position + 1) * size][world().share(size)])

    def augment(self, images: Images, generator: torch.Generator) -> Images:
        """Crop, mirror and add noise, drawn per image."""
        if self.data.crop_padding or self.data.flip:
            images = _shift(images, self.data.crop_padding, self.data.flip, generator)
        return self.with_noise(images, generator)

    def with_noise(self, images: Images, generator: torch.Generator) -> Images:
        """Add the recipe's noise."""
        if self.data.noise_std:
            images = images + self.data.noise_std * torch.randn(images.shape, generator=generator, device=images.device)
        return images


class Ahead:
    """A function of the step that a thread calls for step ``n + 1`` while its caller works on step ``n``."""

    def __init__(self, function: Callable[[int], Raw]) -> None:
        self._function = function
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Raw]] | None = None

    def __call__(self, step: int) -> Raw:
        """Return the function's value, or raise its error."""
        ahead = self._next
        now = ahead[1] if ahead and ahead[0] == step else self._thread.submit(self._function, step)
        self._next = step + 1, self._thread.submit(self._function, step + 1)
        return now.result()


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """Put a tensor on a device; the copy to a GPU runs while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and not tensor.is_cuda else tensor.to(device)


def _shift(images: Images, padding: int, flip: bool, generator: torch.Generator) -> Images:
    """Random crop of the reflect-padded image, then a random mirror: one gather for the whole batch."""
    n, channels, height, width = images.shape
    device = images.device

    def randint(high: int) -> Tensor:
        return torch.randint(high, (n, 1), generator=generator, device=device)

    if padding:
        images = F.pad(images, (padding,) * 4, mode="reflect")
    rows = torch.arange(height, device=device) + randint(2 * padding + 1)
    columns = torch.arange(width, device=device) + randint(2 * padding + 1)
    if flip:
        columns = torch.where(randint(2) == 1, columns.flip(1), columns)
    index = torch.arange(n, device=device)
    return images[
        index[:, None, None, None], torch.arange(channels, device=device)[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
