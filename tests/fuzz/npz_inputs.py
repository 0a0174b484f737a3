"""NumPy archives: arrays of the wrong kind, headers that promise much, members that are bombs, doubled, encrypted or damaged."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from box import CANARY
from texts import CHARACTERS, NAMES, damaged_bytes, file_name, write

Arrays = dict[str, Any]
MIB = 2**20


class Runs:
    """An object whose pickle would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch ../{CANARY}",)


@cache
def good() -> Arrays:
    """Three classes of small grey images."""
    rng = np.random.default_rng(0)
    sizes = {"train": 30, "test": 12}
    images = {f"{part}_images": rng.integers(0, 256, (n, 8, 8), dtype=np.uint8) for part, n in sizes.items()}
    return images | {f"{part}_labels": np.arange(n) % 3 for part, n in sizes.items()} | {"class_names": np.array(["cat", "dog", "fox"])}


def npy(array: Any) -> bytes:
    """An array as the content of a .npy file; one of objects is pickled."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def header(descr: str, shape: str, *, version: int = 1, length: int | None = None) -> bytes:
    """The head of a .npy file with this text in it."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size % 2 ** (16 if version == 1 else 32)) + text


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, method)  # of 1980, not of now
    return content.getvalue()


@cache
def bomb(n_mib: int) -> tuple[bytes, int, int]:
    """A raw deflate stream of zeros, its checksum, and its size when it is unpacked."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(n_mib):
        checksum = zlib.crc32(bytes(MIB), checksum)
    return piece * n_mib + packer.flush(), checksum, n_mib * MIB


def with_bomb(members: dict[str, bytes], name: str, stream: tuple[bytes, int, int]) -> bytes:
    """A zip of these members and one that is a bomb, written by hand."""
    data, checksum, size = stream
    plain = archive(members)
    end = plain.rindex(b"PK\x05\x06")
    n, _, start = struct.unpack_from("<HII", plain, end + 10)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 33, checksum, len(data), size, len(name), 0) + name.encode() + data
    about = struct.pack(
        "<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, checksum, len(data), size, len(name), 0, 0, 0, 0, 0, start
    )
    directory = plain[start:end] + about + name.encode()
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, n + 1, n + 1, len(directory), start + len(local), 0)
    return plain[:start] + local + directory + tail


def _odd_arrays(rng: Random) -> Arrays:
    arrays = dict(good())
    images: tuple[Callable[[], Any], ...] = (
        lambda: np.zeros((30, 8, 8), rng.choice((bool, np.int8, np.uint16, np.float64, np.complex64, "S3", "U3", "M8[s]", ">u2", object))),
        lambda: np.zeros(rng.choice(((), (30,), (30, 8), (30, 8, 8, 3, 1), (0, 8, 8), (30, 0, 0), (30, 8, 0), (30, 8, 9), (1, 8, 8),
                                     (30, 7, 7), (30, 8, 8, 2), (30, 8, 8, 0), (30, 1, 1), (31, 8, 8), (3, 900, 900, 3))), np.uint8),
        lambda: np.asfortranarray(good()["train_images"]),
        lambda: np.array([Runs()]),
        lambda: np.zeros(30, [("a", "u1"), ("b", "f4")]),
        lambda: np.broadcast_to(np.uint8(3), (30, 8, 8)),
    )  # fmt: skip
    labels: tuple[Callable[[], Any], ...] = (
        lambda: np.array([*[0, 1, 2] * 9, 0, 1, rng.choice((2_000_000_000, 10**12, 2**63 - 1, -1, -(2**62), 40_000, 3))]),
        lambda: np.full(30, rng.choice((0, 255)), np.uint8),
        lambda: np.full(30, 65535, np.uint16),
        lambda: np.full(30, 2**64 - 1, np.uint64),
        lambda: np.array([0.0, 1.0, np.nan] * 10),
        lambda: np.zeros(rng.choice(((), (0,), (29,), (30, 1), (30, 2), (1, 30))), np.int64),
        lambda: np.array([True, False, True] * 10),
        lambda: np.arange(30),
        lambda: np.array(["cat"] * 30),
        lambda: np.array([Runs()] * 30),
        lambda: np.array([1] * 30).astype(">i8"),
    )
    names: tuple[Callable[[], Any], ...] = (
        lambda: np.array([*rng.sample([n for n in NAMES if "\ud800" not in n], 3)]),
        lambda: np.array(["".join(rng.choices(CHARACTERS.replace("\x00", ""), k=9)) for _ in range(3)]),
        lambda: np.array([str(k) for k in range(rng.choice((0, 1, 2, 4, 50_000)))]),
        lambda: np.array(["cat", "cat", "cat"]),
        lambda: np.array([b"cat", b"\xff\x1b[31m", b""]),
        lambda: np.array([1.5, np.nan, np.inf]),
        lambda: np.array("cat"),
        lambda: np.array([["cat", "dog", "fox"]]),
        lambda: np.array([Runs(), "dog", "fox"]),
        lambda: np.array(["c" * 100_000, "d", "e"]),
    )
    for _ in range(rng.randint(1, 2)):
        part = rng.choice(("train", "test", "val"))
        choice = rng.randrange(4)
        if choice == 0:
            arrays[f"{part}_images"] = rng.choice(images)()
        elif choice == 1:
            arrays[f"{part}_labels"] = rng.choice(labels)()
        elif choice == 2:
            arrays["class_names"] = rng.choice(names)()
        else:
            arrays.pop(rng.choice(list(arrays)))
    return arrays


def _odd_header(rng: Random) -> bytes:
    numbers = (
        "10**12",
        "1000000000000",
        "99999999999999999999",
        "-1",
        "-8",
        "1e9",
        "'8'",
        "None",
        "True",
        "0",
        "8",
        "2**62",
        "(8, 8)",
        "0x8",
    )
    shape = rng.choice((f"({rng.choice(numbers)}, {rng.choice(numbers)}, {rng.choice(numbers)})", "()", "[30, 8, 8]", "30", "", "(" * 5000))
    descr = rng.choice(
        ("'|u1'", "'|u1'", "'<i8'", "'|O'", "'zz'", "None", "'|S1000000000000'", "[('a', '|u1')]", "'\x1b[31m'", "'|V0'", "(")
    )
    head = header(descr, shape, version=rng.choice((1, 1, 2, 3, 9)), length=rng.choice((None, None, None, 0, 10, 65535, 2**31, 2**32 - 1)))
    return head + bytes(rng.choice((0, 100, 1920)))


def tampered_zip(rng: Random, plain: bytes) -> bytes:
    """Flags and fields of a zip's headers with other values: encrypted, another method, other sizes, other names."""
    data = bytearray(plain)
    for sign, flag_at, method_at, size_at in ((b"PK\x01\x02", 8, 10, 20), (b"PK\x03\x04", 6, 8, 18)):
        at = -1
        while (at := data.find(sign, at + 1)) >= 0 and at + 30 < len(data):
            if rng.random() < 0.7:
                match rng.randrange(4):
                    case 0:
                        data[at + flag_at] |= 1
                    case 1:
                        data[at + method_at] = rng.choice((0, 8, 12, 14, 93, 99))
                    case 2:
                        struct.pack_into("<I", data, at + size_at + rng.choice((0, 4)), rng.choice((0, 1, 2**31, 2**32 - 1)))
                    case 3:
                        data[at + (46 if sign[2] == 1 else 30)] = rng.choice((0, 27, 47, 92, 255))
    return bytes(data)


def content(rng: Random) -> bytes:
    """What stands in place of a good archive."""
    members = {f"{name}.npy": npy(array) for name, array in good().items()}
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    choice = rng.random()
    if choice < 0.4:
        return archive({f"{name}.npy": npy(array) for name, array in _odd_arrays(rng).items()}, rng.choice(methods))
    if choice < 0.55:
        members[f"{rng.choice(list(good()))}.npy"] = _odd_header(rng)
        return archive(members, rng.choice(methods))
    if choice < 0.7:
        return damaged_bytes(rng, archive(members, rng.choice(methods)))
    if choice < 0.82:
        return tampered_zip(rng, archive(members, rng.choice(methods)))
    if choice < 0.84:
        target = rng.choice(("zeros.npy", "train_images.npy", "class_names.npy", "README"))
        members.pop(target, None)
        head = header("'|u1'", f"({3072 * MIB - 128},)").ljust(128) if rng.random() < 0.5 else b""
        data, checksum, size = bomb(3072)
        return with_bomb(members | ({"zeros.npy": head} if head else {}), target, (data, checksum, size))
    if choice < 0.92:  # members with odd names, or twice
        buffer = io.BytesIO(archive(members))
        with zipfile.ZipFile(buffer, "a") as file:
            for _ in range(rng.choice((1, 2, 3000))):
                name = rng.choice(
                    ("train_images.npy", "test_labels.npy", f"../outside/{CANARY}.npy", f"/{CANARY}", "x.npy", "\x1b[31m.npy", "a/b/")
                )
                file.filename = None
                file.NameToInfo.pop(name, None)  # zipfile warns of names that come twice
                file.writestr(zipfile.ZipInfo(name), npy(np.arange(3)))
        return buffer.getvalue()
    return rng.choice((b"", b"PK\x05\x06" + bytes(18), npy(good()["train_images"]), b"\x80\x04]q\x00.", b"text\n" * 9, rng.randbytes(300)))


def npz(rng: Random, work: Path) -> list[str]:
    """``data check`` of an archive, or of what is none."""
    path = work / (file_name(rng) if rng.random() < 0.1 else "x.npz")
    kind = rng.random()
    if kind < 0.005:
        os.mkfifo(path)
    elif kind < 0.02:
        path.mkdir()
    elif kind < 0.03:
        path.symlink_to(rng.choice((path.name, "/dev/zero", "/proc/self/mem", "../gone", "/etc/passwd", ".")))
    elif kind < 0.95:
        write(path, content(rng))
        if rng.random() < 0.03:
            path.chmod(rng.choice((0, 0o200, 0o111)))
    return ["data", "check", f"npz:{path.name}", *(["--json"] if rng.random() < 0.2 else [])]
