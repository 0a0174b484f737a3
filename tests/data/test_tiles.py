import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gmmcli.data.pictures import save_grid
from gmmcli.data.tiles import KEY, Tiles

TILES = Tiles(left=5, top=2, pitch=10, side=8, size=4, rows=2, columns=3)


def told(text: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    image = Image.new("L", size)
    image.info[KEY] = text
    return image


def test_the_images_of_a_grid_come_out_as_they_went_in(tmp_path: Path) -> None:
    images = torch.arange(2 * 3, dtype=torch.float32).view(2, 3, 1, 1, 1).expand(2, 3, 1, 8, 8) / 6
    images = (images + torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) / 6) * 2 - 1
    (path,) = save_grid([("a label", images[0]), ("b", images[1])], tmp_path / "grid.png", "A caption")
    with Image.open(path) as sheet:
        tiles = Tiles.read(sheet)
        assert tiles
        found = [torch.tensor([*tile.convert("L").get_flattened_data()]).view(8, 8) for tile in tiles.cut(sheet)]
    assert (tiles.rows, tiles.columns, tiles.size, tiles.side) == (2, 3, 8, 48)
    expected = [((images[i, j, 0] + 1) / 2 * 255).round() for j in range(3) for i in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_another_format_has_no_layout_and_is_written_all_the_same(tmp_path: Path) -> None:
    (path,) = save_grid([("", torch.zeros(2, 1, 8, 8))], tmp_path / "grid.webp")
    with Image.open(path) as sheet:
        assert Tiles.read(sheet) is None


def test_a_layout_comes_back(tmp_path: Path) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "x.png", pnginfo=TILES.text())
    with Image.open(tmp_path / "x.png") as image:
        assert Tiles.read(image) == TILES


@pytest.mark.parametrize(
    "text",
    ["", "7", "[]", "{}", json.dumps({**vars(TILES), "more": 1})]
    + [
        json.dumps({**vars(TILES), name: value})
        for name, value in [("rows", 4), ("columns", 10**9), ("left", -1), ("pitch", 1.5), ("size", 9)]
    ],
)
def test_a_layout_that_does_not_fit_is_none(text: str) -> None:
    assert Tiles.read(told(json.dumps(vars(TILES)))) == TILES
    assert Tiles.read(told(text)) is None
    assert Tiles.read(Image.new("L", (40, 30))) is None
