from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gmmcli.data.pictures import BETWEEN, GAP, HEADING, PAPER, save_grid, save_image, to_arrays, wrapped
from gmmcli.data.tiles import Tiles
from gmmcli.types import to_model


def images(n: int, channels: int = 3, size: int = 8) -> torch.Tensor:
    raw = torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(n))
    return to_model(raw.byte())


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_to_arrays_puts_channels_last_and_clamps() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0, -7.0, 7.0, 2 / 255 - 1])
    arrays = to_arrays(values[None, :, None, None].expand(1, 6, 2, 3))
    assert arrays.shape == (1, 2, 3, 6)
    assert arrays[0, 0, 0].tolist() == [0, 128, 255, 0, 255, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_picture_comes_back_as_it_was(channels: int, tmp_path: Path) -> None:
    array = to_arrays(images(1, channels))[0]
    save_image(array, tmp_path / "x.png")
    assert np.array_equal(opened(tmp_path / "x.png").reshape(array.shape), array)


@pytest.mark.parametrize(("channels", "size", "scale"), [(3, 8, 6), (1, 8, 6), (3, 32, 2), (1, 28, 2), (3, 100, 1)])
def test_a_grid_shows_every_pixel_as_a_square(channels: int, size: int, scale: int, tmp_path: Path) -> None:
    rows = [("cat", images(3, channels, size)), ("a long name", images(2, channels, size))]
    save_grid(rows, tmp_path / "new" / "grid.png")
    sheet, pitch = opened(tmp_path / "new" / "grid.png"), scale * size + GAP
    assert sheet.shape[0] == 2 * pitch + GAP
    left = sheet.shape[1] - 3 * pitch  # the margin with the labels
    for row, (_, part) in enumerate(rows):
        for column, array in enumerate(to_arrays(part)):
            top, at = row * pitch + GAP, left + column * pitch
            cell = sheet[top : top + scale * size, at : at + scale * size]
            assert np.array_equal(cell, np.broadcast_to(np.kron(array, np.ones((scale, scale, 1), np.uint8)), cell.shape))
            assert (sheet[top - GAP : top, at : at + pitch] == PAPER).all()
    assert (sheet[pitch:, left + 2 * pitch :] == PAPER).all()  # the second row has one image less
    assert (sheet[:, :left] < PAPER).any()  # and there are labels


def test_a_caption_adds_a_line_and_widens_the_sheet_to_fit(tmp_path: Path) -> None:
    rows = [("cat", images(1))]
    save_grid(rows, tmp_path / "plain.png")
    save_grid(rows, tmp_path / "said.png", "where these images come from, at some length")
    plain, said = opened(tmp_path / "plain.png"), opened(tmp_path / "said.png")
    assert said.shape[0] == plain.shape[0] - GAP + 28
    assert said.shape[1] > plain.shape[1]
    assert (said[-28:] < 128).any()
    assert (said[:, -5:] == PAPER).all()  # nothing cut off at the right


def test_groups_stand_side_by_side_under_their_headings(tmp_path: Path) -> None:
    real, drawn = images(5, size=48), images(4, size=48)
    save_grid([("cat", real[:3], drawn[:2]), ("", real[3:], drawn[2:])], tmp_path / "x.png", headings=["real", "generated"])
    sheet, pitch = opened(tmp_path / "x.png"), 48 + GAP
    left = sheet.shape[1] - 5 * pitch - BETWEEN
    for at, group in ((left, [real[:3], real[3:]]), (left + 3 * pitch + BETWEEN, [drawn[:2], drawn[2:]])):
        assert (sheet[:HEADING, at : at + pitch] < 128).any()
        for row, part in enumerate(group):
            for column, array in enumerate(to_arrays(part)):
                top, start = HEADING + GAP + row * pitch, at + column * pitch
                assert np.array_equal(sheet[top : top + 48, start : start + 48], array)
    assert (sheet[HEADING:, left + 3 * pitch - GAP : left + 3 * pitch + BETWEEN] == PAPER).all()
    with Image.open(tmp_path / "x.png") as picture:
        assert Tiles.read(picture) is None  # whose images are all at one distance


def test_a_heading_that_is_wider_than_its_group_is_not_cut_off(tmp_path: Path) -> None:
    save_grid([("", images(1), images(1))], tmp_path / "x.png", headings=["where these images come from", "and those, at some length"])
    sheet = opened(tmp_path / "x.png")[:HEADING]
    dark = (sheet < 128).any(axis=(0, 2)).nonzero()[0]
    assert max(np.diff(dark)) > BETWEEN // 2  # between the two
    assert dark[-1] < sheet.shape[1] - 1


def test_wrapped_breaks_a_class_into_rows_and_labels_the_first() -> None:
    whole = images(7)
    rows = wrapped("cat", 3, whole)
    assert [(label, len(part)) for label, part in rows] == [("cat", 3), ("", 3), ("", 1)]
    assert torch.equal(torch.cat([part for _, part in rows]), whole)


def test_wrapped_breaks_groups_at_the_same_places_whatever_they_have() -> None:
    rows = wrapped("cat", 2, images(1), images(3))
    assert [(label, *map(len, parts)) for label, *parts in rows] == [("cat", 1, 2), ("", 0, 1)]
    assert [len(rows) for rows in (wrapped("cat", 2, images(3), images(0)), wrapped("cat", 2, images(0)))] == [2, 0]


@pytest.mark.parametrize("kind", ["image", "grid"])
def test_a_picture_whose_writing_fails_leaves_the_old_one_and_nothing_else(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (image,) = tmp_path / "x.png", images(1)
    write = {"image": lambda: save_image(to_arrays(image[None])[0], path), "grid": lambda: save_grid([("cat", image[None])], path)}[kind]
    write()
    old = path.read_bytes()

    def full(self: Image.Image, target: Path, **settings: object) -> None:
        target.write_bytes(old[:20])
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space left"):
        write()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
