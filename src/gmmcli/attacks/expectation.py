"""A refined classifier as an attack sees that knows of the refinement: expectation over transformations (Athalye et al. 2018)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gmmcli.attacks.pixel_model import PixelModel, pixel_logits
from gmmcli.core.refinement import Refined
from gmmcli.types import Labels, Logits

DRAWS = 10
"""Of the noise, in a gradient."""


class Expectation(PixelModel):
    """Images are classified with the noise of the defence; a gradient is the mean over draws of other noise, through all of the chain.

    Every look of an attack draws its own noise, by the number of the look and the same for all images, so that what becomes of one image
    does not depend on the others. Of a refinement without noise one draw is as good as many.
    """

    def __init__(
        self, model: Refined, draws: int = DRAWS, dtype: torch.dtype = torch.float32, scale: float = 1.0, straight_through: bool = False
    ) -> None:
        super().__init__(model, dtype, scale)
        self.refined = model
        self.random = model.refinement.random
        self.draws = draws if self.random else 1
        self.straight_through = straight_through

    def look(self, pixels: Tensor, loss: Callable[[Logits], Tensor], differentiated: bool, number: int) -> list[Tensor]:
        """See ``PixelModel``; loss and gradient are means over the draws."""
        if not differentiated:
            return super().look(pixels, loss, differentiated, number)
        with torch.no_grad():
            logits = self(pixels)
        looks = [self.drawn("eot", number, k).look(pixels, loss, True, number) for k in range(self.draws)]
        return [logits, *(torch.stack(column).mean(0) for column in list(zip(*looks, strict=True))[1:])]

    def drawn(self, *draw: int | str) -> PixelModel:
        """The same defence with other noise."""
        refinement = replace(self.refined.refinement, draw=draw)
        return PixelModel(Refined(self.refined.plain, refinement, self.straight_through), self.dtype, self.scale)

    @property
    def straight(self) -> "Expectation":
        """The same, with gradients that take the chain for the identity (BPDA)."""
        return Expectation(self.refined, self.draws, self.dtype, self.scale, straight_through=True)

    @property
    def plain(self) -> PixelModel:
        """The classifier as it is seen by who knows nothing of the refinement."""
        return PixelModel(self.refined.plain, self.dtype, self.scale)

    def right_under_new_noise(self, pixels: Tensor, labels: Labels) -> Tensor:
        """Return how often each image is classified correctly where the defence draws its noise anew, shape (batch,)."""
        right = [pixel_logits(self.drawn("judge", k), pixels).argmax(1) == labels for k in range(self.draws)]
        return torch.stack(right).double().mean(0)
