from collections import Counter

import numpy as np
import torch
from sklearn.datasets import load_digits

from gmmcli.data.digits import Digits

SIZES = {"train": 1257, "validation": 180, "test": 360}


def test_the_splits_have_their_sizes_and_share_no_image() -> None:
    dataset = Digits().load()
    splits = [dataset.split(name) for name in ("train", "validation", "test")]
    assert [len(part.images) for part in splits] == list(SIZES.values())
    pixels, target = load_digits(return_X_y=True)
    original = Counter((int(y), x.tobytes()) for x, y in zip(np.rint(pixels * 255 / 16).astype(np.uint8), target, strict=True))
    ours = Counter((int(y), x.numpy().tobytes()) for part in splits for x, y in zip(*part.batch(), strict=True))
    assert ours == original  # all 1,797 and each one once, with its label


def test_the_splits_are_stratified() -> None:
    dataset = Digits().load()
    shares = np.bincount(load_digits().target) / 1797
    for name, n in SIZES.items():
        counts = dataset.split(name).labels.bincount(minlength=10).numpy()  # type: ignore[arg-type]
        assert np.abs(counts - shares * n).max() < 1.5


def test_grey_levels_are_spread_over_all_bytes() -> None:
    assert Digits().load().train.images.unique().tolist() == [round(level * 255 / 16) for level in range(17)]


def test_two_loads_are_equal() -> None:
    first, second = Digits().load(), Digits().load()
    for name in SIZES:
        assert torch.equal(first.split(name).images, second.split(name).images)  # type: ignore[arg-type]
