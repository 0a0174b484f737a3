import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gmmcli.data.arrays import HEADER
from gmmcli.data.decoding import LARGE
from gmmcli.data.mapped import IN_MEMORY
from gmmcli.data.npz import IMAGES
from gmmcli.data.reading import CLASSES, NAME, Archive, reading, size_of
from gmmcli.data.tree import DEPTH, FILE_BYTES
from gmmcli.errors import DataError


def test_every_error_becomes_one_sentence_and_sentences_stay() -> None:
    raised = [
        MemoryError(),
        OverflowError("too large"),
        RuntimeError("password required"),
        zlib.error("-3"),
        PermissionError(13, "denied", "x"),
    ]
    expected = ["MemoryError", "too large", "password required", "-3", "denied"]
    for error, reason in zip(raised, expected, strict=True):
        with pytest.raises(DataError) as caught, reading("x cannot be read", "mend it"):
            raise error
        assert (caught.value.message, caught.value.hint) == (f"x cannot be read ({reason})", "mend it")
    own = DataError("x is missing", "find it")
    with pytest.raises(DataError) as caught, reading("x cannot be read", "mend it"):
        raise own
    assert caught.value is own
    with pytest.raises(KeyboardInterrupt), reading("x cannot be read", "mend it"):
        raise KeyboardInterrupt


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(DataError) as caught, reading("x cannot be read", "mend it"):
        raise ValueError("z" * 10**6)
    assert caught.value.message == f"x cannot be read ({'z' * 300}...)"


@pytest.mark.parametrize("read", [size_of, Archive])
def test_only_regular_files_are_opened(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("pipe")
    reasons = {"pipe": "not a regular file", "link": "not a regular file", ".": "not a regular file"}
    reasons |= {"loop": "Too many levels of symbolic links", "gone": "No such file or directory", "x" * 300: "File name too long"}
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=rf"\({reason}\)$"), reading("x cannot be read", "mend it"):
            read(tmp_path / name)


def test_the_documentation_says_the_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    table = page.partition("### Limits")[2]
    limits = {"CLASSES": CLASSES, "NAME": NAME, "FILE_BYTES": FILE_BYTES, "DEPTH": DEPTH, "IMAGES": IMAGES, "HEADER": HEADER}
    assert Image.MAX_IMAGE_PIXELS
    limits |= {"IN_MEMORY": IN_MEMORY, "MAX_IMAGE_PIXELS": 2 * Image.MAX_IMAGE_PIXELS, "LARGE": LARGE}
    for name, limit in limits.items():
        (row,) = [line for line in table.splitlines() if f"`{name}`" in line]
        assert f"| {limit:,} |" in row
