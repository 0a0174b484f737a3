"""Archives that somebody made to do harm: one sentence each, and little memory."""

import os
import tracemalloc
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmmcli.data.arrays import HEADER, Arrays
from gmmcli.data.npz import Npz
from gmmcli.data.reading import CLASSES, NAME
from gmmcli.errors import DataError

IMAGES = np.zeros((40, 8, 8, 3), np.uint8)
LABELS = np.arange(40) % 2
LITTLE = 16 * 2**20


def npy(array: Any) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, length: int | None = None, version: bytes = b"\1\0") -> bytes:
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + size.to_bytes(2 if version == b"\1\0" else 4, "little") + text.encode()


def declared(shape: Any, descr: str = "'|u1'", data: bytes = b"") -> bytes:
    """An array whose header says anything."""
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}") + data


def archive(path: Path, method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Npz:
    whole = {"train_images": npy(IMAGES), "train_labels": npy(LABELS), "test_images": npy(IMAGES), "test_labels": npy(LABELS)}
    with zipfile.ZipFile(path / "x.npz", "w", method) as file:
        for name, content in (whole | members).items():
            file.writestr(f"{name}.npy", content)
    return Npz(path=str(path / "x.npz"))


def refused(source: Npz, *parts: str) -> None:
    """One sentence without numpy's advice to trust the file, before much is allocated."""
    tracemalloc.start()
    with pytest.raises(DataError) as caught, warnings.catch_warnings(action="error"):
        source.load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = caught.value.message
    assert message.startswith(source.path) and all(part in message for part in parts), message
    assert len(message) < 700 and "\n" not in message and "allow_pickle" not in message + caught.value.hint
    assert caught.value.hint and caught.value.exit_code == 3
    assert peak < LITTLE, f"{peak:,} bytes"


HEADERS: dict[str, tuple[bytes, str]] = {
    "10^12 images": (declared((10**12, 8, 8)), "does not take the 0 bytes it has"),
    "a negative size": (declared((-40, 8, 8)), "does not take the 0 bytes it has"),
    "two negative sizes": (declared((-40, -8, 8), data=bytes(2560)), "does not take the 2560 bytes it has"),
    "a size beyond 64 bits": (declared((2**70, 8, 8)), "does not take the 0 bytes it has"),
    "sizes whose product overflows to what is there": (declared((2**32, 2**32, 1)), "does not take the 0 bytes it has"),
    "10^9 bytes a number": (declared((40, 8, 8), "'|V1000000000'"), "does not take the 0 bytes it has"),
    "0 bytes a number": (declared((10**12, 8, 8), "'|V0'"), "does not take the 0 bytes it has"),
    "more than it has": (declared((41, 8, 8), data=bytes(2560)), "uint8 of shape (41, 8, 8), which does not take the 2560 bytes it has"),
    "less than it has": (declared((39, 8, 8), data=bytes(2560)), "uint8 of shape (39, 8, 8), which does not take the 2560 bytes it has"),
    "a header of 4 GiB": (header("", 2**32 - 1, b"\2\0"), "EOF: reading array header"),
    "a header that is too long": (header(" " * 2 * HEADER, version=b"\2\0"), "EOF: reading array header"),
    "a header of brackets": (header("(" * 9000), ""),
    "a header of signs": (header("{'shape': " + "-" * 9000 + "1}"), ""),
    "a header of digits": (header("{'shape': (" + "9" * 9000 + ",)}"), ""),
    "a header that is code": (header("__import__('os').abort()"), ""),
    "an unknown version": (header("{}", version=b"\x63\0"), ""),
    "a type that is not there": (declared((40, 8, 8), "'|q9'"), "descr is not a valid dtype descriptor"),
    "a type of types": (declared((40, 8, 8), "[('a', '<i4', (10**9,))]"), ""),
    "lists for sizes": (declared([40, 8, 8]), "shape is not valid"),
    "objects": (declared((40, 8, 8), "'|O'", b"cos\nabort\n(tR."), "Object arrays are pickles"),
    "fields that are objects": (declared((40,), "[('a', '|O')]", bytes(320)), "Object arrays are pickles"),
    "no header": (b"not an array", "magic string"),
    "nothing": (b"", "magic string"),
}


@pytest.mark.parametrize("name", ["train_images", "train_labels", "class_names"])
@pytest.mark.parametrize(("content", "part"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_is_believed_only_where_its_size_is_there(content: bytes, part: str, name: str, tmp_path: Path) -> None:
    refused(archive(tmp_path, **{name: content}), part)


def test_a_header_by_python_2_is_read_without_a_word(tmp_path: Path) -> None:
    old = archive(tmp_path, train_labels=declared("(40L,)", "'<i8'", LABELS.tobytes())).load()
    assert old.train.labels.bincount().tolist() == [18, 18]


def test_names_and_labels_have_limits(tmp_path: Path) -> None:
    labels = np.array([2_000_000_000, *LABELS[1:]])
    refused(archive(tmp_path, train_labels=npy(labels)), f"x.npz, train: label 2000000000 of image 0 is outside 0..{CLASSES - 1}")
    refused(archive(tmp_path, train_labels=npy(np.full(40, -1))), "x.npz, train: label -1 of image 0 is outside 0..0")
    refused(archive(tmp_path, train_labels=npy(np.full(40, 2**64 - 1, np.uint64))), "x.npz, train: label -1 of image 0 is outside 0..0")
    refused(archive(tmp_path, class_names=npy(np.zeros(10**6, "U1"))), "class_names is <U1 of shape (1000000,)")
    refused(archive(tmp_path, class_names=npy(np.array(["cat", "d" * 10**6]))), "class_names is <U1000000 of shape (2,)")
    longest = archive(tmp_path, class_names=npy(np.array(["cat", "d" * NAME]))).load()
    assert longest.class_names == ("cat", "d" * NAME)
    refused(
        archive(tmp_path, train_images=declared((10**9, 0, 8)), train_labels=declared((10**9,))), "train_images is uint8 of shape (10000"
    )


def test_what_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    bomb = declared((2**26,), data=bytes(2**26))
    tracemalloc.start()
    dataset = archive(tmp_path, extra=bomb, broken=b"junk", objects=declared((1,), "'|O'")).load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset.train) == 36
    assert peak < 2**26 + LITTLE  # the bomb itself was made before: what loading took comes on top


def test_an_array_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path)
    with zipfile.ZipFile(source.path, "a") as file:
        file.writestr("train_labels", npy(LABELS))
    refused(source, "it has 2 arrays 'train_labels'")


def test_arrays_beyond_the_machines_memory_are_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}.__getitem__)
    refused(source, "train_images takes 0.0 GiB, and this machine has 0.0 GiB of memory")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_only_methods_whose_memory_is_bounded_are_unpacked(method: int, tmp_path: Path) -> None:
    refused(archive(tmp_path, method), "only stored and deflate are read")


def patched(source: Npz, local: int, central: int, value: bytes) -> Npz:
    """Change a field in both headers of the first member of a zip, by where it stands in either."""
    content = bytearray(Path(source.path).read_bytes())
    for start, field in ((content.index(b"PK\3\4"), local), (content.index(b"PK\1\2"), central)):
        content[start + field : start + field + len(value)] = value
    Path(source.path).write_bytes(content)
    return source


def test_zips_that_lie(tmp_path: Path) -> None:
    refused(patched(archive(tmp_path), 6, 8, b"\1\0"), "encrypted")
    refused(patched(archive(tmp_path), 8, 10, b"\x63\0"), "compressed by method 99, only stored and deflate are read")
    longer = (len(npy(IMAGES)) + 2**20).to_bytes(4, "little")
    refused(patched(archive(tmp_path), 22, 24, longer), "does not take the")
    refused(patched(archive(tmp_path, zipfile.ZIP_STORED), 22, 24, longer), "stored in another size than its own")
    content = npy(IMAGES)
    for size in (len(IMAGES.tobytes()) - 192, len(IMAGES.tobytes()) + 192):  # what is packed is one image longer or shorter than said
        told = declared((size // 192, 8, 8, 3))
        packed = archive(tmp_path, train_images=told + content[128:], train_labels=npy(np.arange(size // 192) % 2))
        refused(patched(packed, 22, 24, (len(told) + size).to_bytes(4, "little")), "")


def test_what_is_no_archive_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    refused(Npz(path=str(tmp_path / "x.npy")), "cannot be read as an .npz of plain arrays")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(Npz(path=str(tmp_path / "pipe.npz")), "not a regular file")
    refused(Npz(path=str(tmp_path)), "not a regular file")
    refused(Npz(path=str(tmp_path / ("x" * 300))), "File name too long")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04cos\nabort\n.")
    refused(Npz(path=str(tmp_path / "pickle.npz")), "File is not a zip file")


def test_names_are_listed(tmp_path: Path) -> None:
    with Arrays(Path(archive(tmp_path).path)) as arrays:
        assert arrays.names == ["test_images", "test_labels", "train_images", "train_labels"]
        assert "test_images" in arrays and "x" not in arrays
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as file:
        for i in range(1000):
            file.writestr(f"{i:04}.npy", b"")
    with pytest.raises(DataError) as caught:
        Npz(path=str(tmp_path / "many.npz")).load()
    assert caught.value.hint.startswith("it has 0000, 0001") and len(caught.value.hint) < 200
