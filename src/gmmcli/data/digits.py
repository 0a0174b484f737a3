"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8, part of the library, nothing to download."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from gmmcli.data.dataset import Dataset, Split, hold_out


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Source table: 1,257 training, 180 validation and 360 test images, always the same, stratified by class."""

    n_classes: ClassVar[int | None] = 10
    kind: Literal["digits"] = "digits"

    def load(self) -> Dataset:
        """Read the images that come with scikit-learn; their 17 grey levels are spread over 0..255."""
        from sklearn.datasets import load_digits

        pixels, target = load_digits(return_X_y=True)
        images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        everything = Split(torch.from_numpy(images), torch.from_numpy(target.astype(np.int64)))
        rest, test = hold_out(everything, 360 / 1797, "digits")
        train, validation = hold_out(rest, 180 / 1437, "digits")
        return Dataset("digits", tuple("0123456789"), train, validation, test)
