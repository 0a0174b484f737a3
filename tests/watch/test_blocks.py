from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.color import Color
from running import previewed

from gmmcli.watch.blocks import half_blocks, preview


def greys(pixels: np.ndarray) -> set[int]:
    return {*np.unique(pixels).tolist()}


def test_a_character_is_two_pixels_in_their_own_colours() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    (line,) = half_blocks(pixels)
    assert line.plain == "▀▀▀"
    first = line.spans[0].style
    assert (first.color, first.bgcolor) == (Color.from_rgb(0, 1, 2), Color.from_rgb(9, 10, 11))  # type: ignore[union-attr]


def test_an_odd_last_row_has_nothing_behind_it() -> None:
    lines = half_blocks(np.zeros((3, 2, 3), np.uint8))
    assert [line.plain for line in lines] == ["▀▀", "▀▀"]
    assert lines[1].spans[0].style.bgcolor is None  # type: ignore[union-attr]


@pytest.mark.parametrize(("width", "height"), [(80, 20), (60, 60), (26, 8), (9, 9), (300, 300)])
def test_a_preview_fits_and_shows_whole_images_of_each_class_first(width: int, height: int, tmp_path: Path) -> None:
    found = preview(previewed(tmp_path, 1), width, height)
    assert found is not None
    assert found.shape[0] <= height
    assert found.shape[1] <= width
    corners = found[:: 8 + 1, :: 8 + 1].reshape(-1, 3)[:, 0].tolist()
    assert corners == ([0, 128, 255] * 4)[: len(corners)]
    assert len(corners) >= min(12, (width + 1) // 9 * ((height + 1) // 9))


def test_larger_images_become_as_large_as_all_classes_fit(tmp_path: Path) -> None:
    path = previewed(tmp_path, 1, size=32)
    small, large = preview(path, 40, 40), preview(path, 99, 32)
    assert small is not None
    assert small.shape == (39, 39, 3)  # two by two of 19: three classes and one more
    assert large is not None
    assert large.shape == (32, 98, 3)  # their own size


def test_another_picture_is_shown_whole(tmp_path: Path) -> None:
    path = tmp_path / "preview.png"
    Image.new("L", (100, 50), 7).save(path)
    found = preview(path, 20, 20)
    assert found is not None
    assert (found.shape, greys(found)) == ((10, 20, 3), {7})


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n torn", b"text"])
def test_a_picture_that_cannot_be_read_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "preview.png").write_bytes(content)
    assert preview(tmp_path / "preview.png", 20, 20) is None
    assert preview(tmp_path / "gone.png", 20, 20) is None
