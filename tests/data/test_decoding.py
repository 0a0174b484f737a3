"""Pictures of every kind look as users expect, and those that will not do are named."""

import struct
import threading
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from gmmcli.data.decoding import Decoder, decode
from gmmcli.data.folder import Folder
from gmmcli.data.tree import Tree
from gmmcli.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Save an image as Pillow does, and decode it as it is."""

    def decoded(image: Image.Image, suffix: str = "png", channels: int = 3, **options: Any) -> np.ndarray:
        image.save(tmp_path / f"a.{suffix}", **options)
        return decode(tmp_path / f"a.{suffix}", 0, channels)

    return decoded


def test_sixteen_bits_are_brought_to_eight(saved: Any) -> None:
    wide = GREY.astype(np.uint16) * 257
    for suffix in ("png", "tiff"):
        assert np.array_equal(saved(Image.fromarray(wide), suffix, 1)[..., 0], GREY)
        assert np.array_equal(saved(Image.fromarray(wide), suffix, 3), np.repeat(GREY[..., None], 3, 2))
    assert np.array_equal(saved(Image.fromarray(wide.astype(">u2")), "tiff", 1)[..., 0], GREY)
    assert saved(Image.fromarray(wide + 100), channels=1).max() <= 255


def test_transparency_is_dropped_not_blended(saved: Any) -> None:
    clear = np.dstack([PIXELS, np.zeros((8, 8), np.uint8)])
    assert np.array_equal(saved(Image.fromarray(clear)), PIXELS)
    palette = Image.fromarray(PIXELS // 64 * 64).quantize(64)
    assert np.array_equal(saved(palette, transparency=bytes(64)), np.asarray(palette.convert("RGB")))
    assert np.array_equal(saved(Image.fromarray(np.dstack([GREY, GREY * 0])), channels=1)[..., 0], GREY)


def test_cmyk_and_other_spaces_become_rgb(saved: Any) -> None:
    flat = Image.new("RGB", (8, 8), (200, 60, 20))
    for mode, suffix in (("CMYK", "jpg"), ("YCbCr", "jpg"), ("CMYK", "tiff"), ("LAB", "tiff")):
        image = flat.convert(mode) if mode != "LAB" else Image.new("LAB", (8, 8), (128, 128, 128))
        expected = (200, 60, 20) if mode != "LAB" else (119, 119, 119)
        assert np.abs(saved(image, suffix)[4, 4].astype(int) - expected).max() <= 6, mode
    assert saved(Image.fromarray(GREY > 127)).max() == 255


def test_a_photograph_is_turned_upright(saved: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left when it was taken
    assert np.array_equal(saved(Image.fromarray(PIXELS), exif=exif), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
def test_of_several_frames_the_first_is_taken(suffix: str, saved: Any) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black", "black")]
    options = {"lossless": True} if suffix == "webp" else {}
    assert saved(frames[0], suffix, save_all=True, append_images=frames[1:], **options).min() == 255


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """The first ten rows of an all-black picture of any size, each at most 64 KiB long."""
    rows = zlib.compress(bytes(min(width // 8 + 2, 2**16) * min(height, 10)))
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/x) (w) file\nshowpage\n%%EOF\n"


BAD: dict[str, tuple[bytes, str]] = {
    "2^62 pixels": (png(2**31 - 1, 2**31 - 1), "decompression bomb"),
    "200 million pixels": (png(20_000, 10_000), "exceeds limit of 178956970 pixels"),
    "no pixels": (png(0, 0), ""),
    "a text of 64 MiB": (png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))), ""),
    "PostScript": (postscript(), "of no format that is read"),
    "a truncated header": (png(8, 8)[:20], ""),
    "an odd chunk": (png(8, 8, chunk(b"iCCP", b"")), ""),
    "nothing": (b"", "of no format that is read"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_what_will_not_do_is_one_sentence(data: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png is not a readable image \(") as caught:
        decode(tmp_path / "a.png", 8, 3)
    assert reason in caught.value.message and "0x" not in caught.value.message


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), struct.error("short"), KeyError("tag"), AssertionError()])
def test_whatever_pillow_raises_is_one_sentence(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=r"a\.png is not a readable image \("):
        decode(tmp_path / "a.png", 8, 3)


@pytest.mark.parametrize(("large", "alone"), [(63, True), (64, False)])
def test_large_images_are_decoded_one_at_a_time(large: int, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[Image.Image] = []
    most: list[int] = []
    together = threading.Barrier(2, timeout=0.1 if alone else 5)

    def upright(image: Image.Image) -> Image.Image:
        at_work.append(image)
        with suppress(threading.BrokenBarrierError):
            together.wait()
        most.append(len(at_work))
        at_work.pop()
        return image

    files: list[Tree] = [tmp_path / f"{i}.png" for i in range(2)]
    for file in files:
        Image.fromarray(PIXELS).save(Path(str(file)))
    monkeypatch.setattr("gmmcli.data.decoding.LARGE", large)
    monkeypatch.setattr(ImageOps, "exif_transpose", upright)
    assert all(np.array_equal(image, PIXELS) for image in Decoder(0, 3).all(files, (2, 8, 8, 3)))
    assert max(most) == (1 if alone else 2)


def test_what_pillow_warns_of_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palette = BytesIO()
    Image.fromarray(PIXELS).quantize(4).save(palette, "PNG", transparency=bytes(4))
    for i in range(20):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(palette.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert len(Folder(path=str(tmp_path), size=8).load().train) == 16  # warnings are errors here


def test_a_single_picture_is_decoded_without_warnings_and_the_filters_are_as_they_were(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).quantize(4).save(tmp_path / "a.png", transparency=bytes(4))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        assert decode(tmp_path / "a.png", 8, 3).shape == (8, 8, 3)
        assert warnings.filters == before
    assert told == []
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(tmp_path / "a.png").convert("RGB")
