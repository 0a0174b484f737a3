"""Training batches: the split on the device, augmented image by image."""

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
from gmmcli.types import Batch, Count, Images, Natural, NonNegative, to_model


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
        return Loader(self, split.to(device), seed)


class Loader:
    """Batch number ``step`` is a function of (seed, step) and the step's generator: nothing to save for a resume."""

    def __init__(self, data: Data, split: Split, seed: int) -> None:
        self.data = data
        self.split = split
        self.seed = seed
        self.steps_per_epoch = len(split) // data.batch_size
        self._epoch = -1
        self._order = torch.empty(0)

    def batch(self, step: int, generator: torch.Generator, clean: bool = False) -> Batch:
        """Return this process's share of the batch of a step (from 0): an epoch visits each image at most once, in an order of its own.

        With ``clean`` it has the images a second time, with noise of their own but neither cropped nor mirrored.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = stream("cpu", self.seed, "epoch", epoch)
            self._order = torch.randperm(len(self.split), generator=order).to(self.split.labels.device)
            self._epoch = epoch
        size = self.data.batch_size
        raw, labels = self.split.batch(self._order[position * size : (position + 1) * size][world().share(size)])
        images = to_model(raw)
        return Batch(self.augment(images, generator), labels, self.with_noise(images, generator) if clean else None)

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
