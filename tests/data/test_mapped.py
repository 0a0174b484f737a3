"""Images that stay in files: the same as in memory, in less of it, and a cache that is whole or not there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gmmcli.data import mapped
from gmmcli.data.dataset import Dataset, Split, concatenate
from gmmcli.data.folder import Folder
from gmmcli.data.loader import Data
from gmmcli.data.mapped import Mapped, in_memory
from gmmcli.data.npz import Npz
from gmmcli.data.sources import Source
from gmmcli.errors import DataError
from gmmcli.rng import stream

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache; it is made when something is written to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gmmc"


@pytest.fixture
def tiny_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory for 1,000 bytes of images."""
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)


def images(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.npy"))  # with those whose name is hidden


def paint(path: Path, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for i in range(20):
        for name in ("cat", "dog"):
            paint(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def arrays(*shape: int) -> dict[str, np.ndarray]:
    made = {f"{part}_images": RNG.integers(0, 256, (n, *shape), np.uint8) for part, n in (("train", 40), ("test", 30))}
    return made | {"train_labels": np.arange(40) % 2, "test_labels": np.arange(30) % 2}


Write = Callable[[Path], Source]


def folder(path: Path) -> Folder:
    return Folder(path=str(path), size=8, validation=0.25)


def zipped(path: Path) -> Folder:
    return folder(Path(shutil.make_archive(str(path), "zip", path)))


def saved(path: Path, save: Any = np.savez, **content: np.ndarray) -> Npz:
    save(path.with_suffix(".npz"), **content)
    return Npz(path=str(path.with_suffix(".npz")), validation=0.25)


SOURCES: dict[str, Write] = {
    "folder": folder,
    "zip": zipped,
    "npz": lambda path: saved(path, **arrays(8, 8, 3)),
    "grey npz": lambda path: saved(path, **arrays(8, 8)),
    "npz by columns": lambda path: saved(path, **{name: np.asfortranarray(array) for name, array in arrays(8, 8, 3).items()}),
    "compressed npz": lambda path: saved(path, np.savez_compressed, **arrays(8, 8, 3)),
}


@pytest.fixture(params=SOURCES.values(), ids=SOURCES.keys())
def both(request: pytest.FixtureRequest, pets: Path, tiny_memory: None) -> Iterator[tuple[Dataset, Dataset]]:
    """The same source mapped, and in memory."""
    source = request.param(pets)
    large = source.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "IN_MEMORY", 2**30)
        yield large, source.load()


def test_mapped_images_are_those_in_memory(both: tuple[Dataset, Dataset]) -> None:
    large, small = both
    assert large.class_names == small.class_names and large.shape == small.shape
    assert large.train.mapped and not small.train.mapped
    for own, other in zip((large.train, large.validation, large.test), (small.train, small.validation, small.test), strict=True):
        assert own.images.shape == other.images.shape
        for one, two in zip(own.batch(), other.batch(), strict=True):
            assert torch.equal(one, two) and one.is_contiguous()
        picked = torch.tensor([4, 0, 4])
        assert torch.equal(own.batch(picked)[0], other.batch(picked)[0])
        assert torch.equal(own.batch(own.labels == 1)[0], other.batch(other.labels == 1)[0])
        assert torch.equal(own.subset(5, 1).take(torch.tensor([3, 1])).batch()[0], other.subset(5, 1).take(torch.tensor([3, 1])).batch()[0])
        assert all(torch.equal(*pair) for pair in zip(own.chunks(4), other.chunks(4), strict=True))
        assert torch.equal(concatenate(own, own).batch()[0], concatenate(other, other).batch()[0])


def test_batches_are_the_same_in_whatever_order_they_are_asked_for(both: tuple[Dataset, Dataset]) -> None:
    large, small = (Data(batch_size=7, crop_padding=2, flip=True, noise_std=0.1).build(dataset.train, CPU, seed=3) for dataset in both)
    for step in (0, 1, 2, 3, 9, 4, 4, 0, 21):
        one, two = (loader.batch(step, stream("cpu", step), clean=True) for loader in (large, small))
        assert all(torch.equal(*pair) for pair in zip(one, two, strict=True))


def test_a_mapped_split_is_divided_without_reading_it(pets: Path, tiny_memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    train = folder(pets).load().train
    monkeypatch.setattr(Mapped, "__getitem__", lambda *_: pytest.fail("images were read"))
    assert len(train.take(torch.tensor([5, 2])).subset(1, 0).to(CPU)) == 1
    assert concatenate(train) is train


def test_what_fits_in_memory_of_a_large_split_is_drawn_by_the_seed_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.cat([torch.zeros(50), torch.tensor([2.0, 1.0]), torch.ones(20)]).long()
    split = Split(torch.arange(72, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 8, 8), labels)
    assert split.some(1) is split
    monkeypatch.setattr(mapped, "IN_MEMORY", 12 * 3 * 8 * 8)
    assert in_memory(3 * 8 * 8) == 12 and in_memory(10**9) == 1
    drawn = [split.some(seed) for seed in (1, 1, 2)]
    assert [some.labels.bincount().tolist() for some in drawn] == [[4, 4, 1]] * 3  # there is one of class 2
    for some in drawn:
        images, own = some.batch()
        assert torch.equal(labels[images[:, 0, 0, 0].long()], own)
    assert torch.equal(drawn[0].batch()[0], drawn[1].batch()[0]) and not torch.equal(drawn[0].batch()[0], drawn[2].batch()[0])
    monkeypatch.setattr(mapped, "IN_MEMORY", 1)
    assert split.some(1).labels.bincount().tolist() == [1, 1, 1]  # never none of a class


def test_only_what_must_be_decoded_and_is_large_is_written_to_the_cache(pets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(pets).load()
    assert not cache.exists()
    monkeypatch.setattr(mapped, "IN_MEMORY", 40 * 8 * 8 * 3)
    folder(pets).load()
    assert not cache.exists()  # 40 images fit
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    saved(pets, **arrays(8, 8, 3)).load()
    assert not cache.exists()  # mapped where they stand
    folder(pets).load()
    assert len(images(cache)) == 1


def test_the_cache_is_written_once_and_anew_when_the_images_or_the_settings_change(
    pets: Path, cache: Path, tiny_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_cat() -> int:
        large = folder(pets).load()
        return int(concatenate(large.train, large.validation, large.test).batch()[0][:, 0, 0, 0].eq(77).sum())

    before = first_cat()
    (kept,) = images(cache)
    content = kept.stat()
    monkeypatch.chdir(pets.parent)
    assert Folder(path="pets", size=8).load().train.mapped  # by another name, from another place
    assert images(cache) == [kept] and kept.stat() == content
    Image.new("RGB", (8, 8), (77, 0, 0)).save(pets / "cat" / "0.png")
    assert first_cat() == before + 1
    (renewed,) = images(cache)
    assert renewed != kept
    os.utime(pets / "dog" / "3.png", (1, 1))
    first_cat()
    paint(pets / "dog" / "99.png")
    first_cat()
    assert len(images(cache)) == 1 and not kept.exists() and not renewed.exists()
    assert Folder(path=str(pets), size=16).load().shape == (3, 16, 16)
    assert Folder(path=str(pets), size=8, channels=1).load().shape == (1, 8, 8)
    assert len(images(cache)) == 3


@pytest.mark.parametrize("damage", ["junk", "of another size"])
def test_an_image_that_will_not_do_is_named_and_nothing_is_kept(damage: str, pets: Path, cache: Path, tiny_memory: None) -> None:
    paint(pets / "dog" / "7.png", size=9)
    if damage == "junk":
        (pets / "dog" / "7.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"dog/7\.png is (not a readable image|9 x 9, .*cat/0\.png is 8 x 8)"):
        Folder(path=str(pets), size=0).load()
    assert images(cache) == []


def test_a_link_that_leads_nowhere_is_named(pets: Path, tiny_memory: None) -> None:
    (pets / "dog" / "7.png").unlink()
    (pets / "dog" / "7.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"dog/7\.png is not a readable image"):
        folder(pets).load()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("broken", [np.zeros((40, 8, 8)), np.zeros((40, 64), np.uint8)], ids=["floats", "flat"])
def test_a_large_array_that_will_not_do_is_named_before_it_is_unpacked(
    save: Any, broken: np.ndarray, tmp_path: Path, cache: Path, tiny_memory: None
) -> None:
    source = saved(tmp_path / "x", save, **(arrays(8, 8) | {"train_images": broken}))
    with pytest.raises(DataError, match=rf"x\.npz: train_images is {broken.dtype} of shape \(40, "):
        source.load()
    assert images(cache) == []


def test_a_large_archive_damaged_inside_is_an_error_and_nothing_is_kept(tmp_path: Path, cache: Path, tiny_memory: None) -> None:
    source = saved(tmp_path / "x", np.savez_compressed, **arrays(8, 8))
    content = bytearray(Path(source.path).read_bytes())
    content[1000:1100] = bytes(100)
    Path(source.path).write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        source.load()
    assert images(cache) == []


@pytest.mark.skipif(sys.platform != "linux", reason="what counts as memory is Linux's")
def test_images_are_read_with_less_memory_than_they_take(tmp_path: Path) -> None:
    n = 832  # 156 MiB as a folder, as an .npz and as a compressed one
    Image.new("RGB", (256, 256), (9, 9, 9)).save(tmp_path / "grey.png")
    for i in range(n):
        path = tmp_path / "pets" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / "grey.png")
    content = {"train_images": np.full((n, 256, 256, 3), 9, np.uint8), "train_labels": np.arange(n) % 2}
    content |= {"test_images": content["train_images"][:100], "test_labels": np.arange(100) % 2}
    archives = [saved(tmp_path / "x", **content).path, saved(tmp_path / "y", np.savez_compressed, **content).path]
    command = [sys.executable, Path(__file__).with_name("read_within.py"), tmp_path / "pets", *archives]
    done = subprocess.run(command, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.stdout == "[True, True, True] [False, False, False]\n", done.stderr
