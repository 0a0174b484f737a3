from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from gmmcli.data import similar
from gmmcli.data.similar import alike, sketch

RNG = np.random.default_rng(0)


def scene() -> Image.Image:
    """A smooth picture, another one at each call."""
    return Image.fromarray(RNG.integers(0, 200, (5, 5, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)


def pairs(*pictures: Image.Image) -> list[list[int]]:
    found: list[list[int]] = alike(np.stack([sketch(picture) for picture in pictures])).tolist()
    return found


def test_copies_of_another_size_quality_brightness_or_mode_look_alike() -> None:
    original = scene()
    compressed = BytesIO()
    original.save(compressed, "JPEG", quality=40)
    copies = [
        original.resize((32, 32)),
        original.resize((200, 180)),
        Image.open(compressed),
        ImageEnhance.Brightness(original).enhance(1.2),
        original.convert("L"),
        original.crop((1, 1, 63, 63)),
    ]
    for copy in copies:
        assert pairs(original, scene(), copy) == [[0, 2]]


def test_other_pictures_and_negatives_do_not() -> None:
    original = scene()
    negative = Image.fromarray(255 - np.asarray(original))
    assert pairs(original, negative, original.transpose(Image.Transpose.FLIP_LEFT_RIGHT), *(scene() for _ in range(30))) == []


def test_plain_pictures_have_nothing_to_compare() -> None:
    assert pairs(Image.new("L", (9, 9), 7), Image.new("L", (9, 9), 8), Image.new("RGB", (9, 9))) == []
    assert alike(np.empty((0, 256), np.uint8)).shape == (0, 2)


def test_blocks_find_what_one_pass_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    sketches = np.stack([sketch(Image.fromarray((image * 15).astype(np.uint8))) for image in load_digits().images[:300]])
    rows = sketches - sketches.mean(1, keepdims=True)
    expected = np.argwhere(np.triu(np.corrcoef(rows) >= similar.ALIKE, 1)).tolist()
    assert len(expected) > 0
    for block in (similar.BLOCK, 300, 7 * 300):
        monkeypatch.setattr(similar, "BLOCK", block)
        assert sorted(alike(sketches).tolist()) == expected
