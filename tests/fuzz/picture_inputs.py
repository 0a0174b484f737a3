"""Folders and zips of images: damaged and dishonest images, names, links, pipes and modes; trees that are deep, wide or loop."""

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

from box import CANARY
from npz_inputs import archive, bomb, tampered_zip, with_bomb
from PIL import Image
from run_inputs import write_run
from texts import NUMBERS, damaged_bytes, encodable, file_name, name, word, write

FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF", "ppm": "PPM"}
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "LAB")


@cache
def picture(suffix: str, mode: str, size: tuple[int, int]) -> bytes:
    """An image file; in RGB where the format has not this mode."""
    content = io.BytesIO()
    image = Image.radial_gradient("L").resize(size)
    try:
        image.convert(mode).save(content, FORMATS[suffix])
    except (OSError, ValueError, KeyError):
        content = io.BytesIO()
        image.convert("RGB").save(content, FORMATS[suffix])
    return content.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG of this head, whatever its rows are."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(more) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


@cache
def _zlib_bomb(n_mib: int) -> bytes:
    """A zlib stream of zeros; its last checksum is none, which decoders meet when all is unpacked."""
    return b"\x78\xda" + bomb(n_mib)[0] + bytes(4)


def image(rng: Random) -> tuple[str, bytes]:
    """A suffix and the content of an image file: one of twenty is good, the others damaged, dishonest, odd or none."""
    suffix, mode = rng.choice(list(FORMATS)), rng.choice(MODES)
    sizes = ((8, 8), (32, 32), (33, 40), (1, 1), (1, 400), (3000, 2), (7, 7))
    content = picture(suffix, mode, rng.choice(sizes))
    match rng.randrange(12):
        case 0 | 1 | 2 | 3:
            content = damaged_bytes(rng, content)
        case 4:
            side = rng.choice((0, 1, 20_000, 60_000, 2**31 - 1))
            content = _png(side, rng.choice((0, 1, side)), zlib.compress(bytes(100)))
        case 5 if rng.random() < 0.1:
            content = _png(14_000, 14_000, _zlib_bomb(188))
        case 6:
            text = zlib.compress(bytes(rng.choice((10, 3 * 2**20))))
            content = _png(8, 8, zlib.compress(bytes(72)), _chunk(b"zTXt", b"k\x00\x00" + text), _chunk(b"iCCP", b"x\x00\x00" + text))
        case 7:
            content = rng.choice(
                (b"", b"GIF89a", b"\xff\xd8\xff", b"<svg/>", b"%!PS", b"P5 9999999 9999999 255\n", b"II*\x00" + b"\xff" * 40)
            )
    return suffix if rng.random() < 0.9 else rng.choice(list(FORMATS)), content


def tree(rng: Random) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of two to four classes, of which one image or none is hostile."""
    tops = rng.choice(([""], [""], ["train", "test"], ["train", "val", "test"], ["Train", "TEST"], ["test"], ["data/train", "data/test"]))
    classes = [file_name(rng) if rng.random() < 0.3 else f"class{k}" for k in range(rng.choice((1, 2, 3, 3, 4)))]
    paths = [f"{top}/{label}/{i}".lstrip("/") for top in tops for label in classes for i in range(rng.choice((0, 1, 2, 12, 12, 12)))]
    hostile = rng.randrange(len(paths)) if paths else -1
    for position, path in enumerate(paths):
        suffix, content = image(rng) if position == hostile else ("png", picture("png", "RGB", (8, 8)))
        yield f"{path}.{suffix}", content


def folder(rng: Random, work: Path) -> list[str]:
    """``data check`` of a folder."""
    root = work / (file_name(rng) if rng.random() < 0.1 else "pictures")
    root.mkdir()
    for path, content in tree(rng):
        write(root / path, content)
    places = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for _ in range(rng.choice((0, 1, 1, 2))):
        _spoil(rng, rng.choice(places), root)
    return ["data", "check", f"folder:{root.name}", *(["--json"] if rng.random() < 0.2 else [])]


def _spoil(rng: Random, place: Path, root: Path) -> None:
    """Put something there that is no image of a class."""
    path = place / f"{file_name(rng) if rng.random() < 0.3 else 'odd'}{rng.choice(('.png', '', '.jpg'))}"
    if path.exists() or path.is_symlink():
        return
    match rng.randrange(9):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(rng.choice((path.name, ".", "..", root.resolve(), "/etc", "/dev/zero", "/etc/passwd", "gone", "../../outside")))
        case 2:
            path.mkdir()
            path.chmod(rng.choice((0, 0o111, 0o444, 0o777)))
        case 3:
            write(path, picture("png", "RGB", (8, 8))).chmod(rng.choice((0, 0o200, 0o111)))
        case 4 if rng.random() < 0.2:
            for _ in range(rng.choice((10, 900))):
                path /= "d"
                if len(str(path)) < 3000:
                    path.mkdir(parents=True)
        case 5 if rng.random() < 0.2:
            for k in range(rng.choice((300, 3000))):
                write(root / f"{k:05}" / "x.png", picture("png", "RGB", (8, 8)))
        case 6 if len(str(path)) < 90:
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(os.path.relpath(path))
        case 7:
            path.mkdir()
            write(path / "x.png", picture("png", "L", (9, 9)))
        case _:
            write(path, image(rng)[1])


def own(rng: Random, work: Path) -> list[str]:
    """Images of a user for the verbs that take them: alone, as a mask, or in a folder with what is none."""
    write_run(work)
    stem = file_name(rng) if rng.random() < 0.2 else "photo"
    suffix, content = image(rng)
    path = write(work / f"{stem}.{suffix}", content)
    good, folder = write(work / "good.png", picture("png", "L", (8, 8))), work / "photos"
    write(folder / "good.png", good.read_bytes())
    _spoil(rng, folder, folder)
    number = rng.choice(NUMBERS)
    verbs = (
        ["classify", path.name, *rng.choice(([], ["--csv"], ["--json"]))],
        ["classify", rng.choice(("photos", "*.png", "-", word(rng), "photos/*")), *rng.choice(([], ["--csv"], ["--json"]))],
        ["restore", path.name, "--denoise", "0.1"],
        ["restore", "good.png", "--mask", path.name, "--n", "1"],
        ["restore", "good.png", "--denoise", number, "--class", word(rng)],
        ["morph", "--n", "1", "--frames", rng.choice(("2", number)), "--from", rng.choice(("1", word(rng))), "--to", "2"],
    )
    return rng.choice(verbs)


def zipped(rng: Random, work: Path) -> list[str]:
    """``data check`` of a zip."""
    members = {encodable(path): content for path, content in tree(rng)}
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    path = work / "pictures.zip"
    match rng.randrange(9):
        case 0 | 1:
            content = damaged_bytes(rng, archive(members, method))
        case 2 | 3:
            content = tampered_zip(rng, archive(members, method))
        case 4:
            content = with_bomb(members, rng.choice(("class0/bomb.png", "bomb.txt")), bomb(rng.choice((64, 64, 64, 300, 3072))))
        case 5:
            odd = (
                f"../outside/{CANARY}.png",
                f"/{CANARY}.png",
                f"class0/../../outside/{CANARY}.png",
                f"class0\\..\\{CANARY}.png",
                "class0/\x1b.png",
            )
            content = archive(members | {rng.choice((*odd, f"class0/{encodable(name(rng))}.png")): picture("png", "RGB", (8, 8))}, method)
        case 6:
            content = archive({"inner.zip": archive(members), "a/b.zip": archive(members)} | (members if rng.random() < 0.5 else {}))
        case 7 if rng.random() < 0.2:
            n, small = rng.choice((3000, 20_000)), picture("png", "RGB", (8, 8))
            content = archive({f"{k % rng.choice((1, 400))}/{k}.png": small for k in range(n)}, zipfile.ZIP_STORED)
        case _:
            content = _with_links(rng, members)
    write(path, content)
    return ["data", "check", f"folder:{path.name}", *(["--json"] if rng.random() < 0.2 else [])]


def _with_links(rng: Random, members: dict[str, bytes]) -> bytes:
    """Entries whose mode says link, device or folder, and one deep path."""
    content = io.BytesIO(archive(members))
    with zipfile.ZipFile(content, "a") as file:
        for kind in rng.sample((0o120777, 0o060777, 0o040000, 0o100000, 0o010644), 2):
            entry = zipfile.ZipInfo(f"class0/odd{kind:o}.png")
            entry.external_attr = kind << 16
            file.writestr(entry, rng.choice((b"/etc/passwd", b"../../outside", b"odd120777.png")))
        if rng.random() < 0.1:
            file.writestr(zipfile.ZipInfo("d/" * rng.choice((50, 5000)) + "x.png"), b"")
    return content.getvalue()
