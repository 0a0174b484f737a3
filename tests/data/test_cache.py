"""A file of the cache is whole or not there, and one process writes it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from gmmcli.data.cache import cached
from gmmcli.errors import DataError, StorageError
from gmmcli.storage import cache_dir


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache; it is made when something is written to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gmmc"


def images(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.npy"))  # with those whose name is hidden


SHAPE = (2, 8, 8, 1)


def npy(file: BinaryIO) -> None:
    np.save(file, np.full(SHAPE, 7, np.uint8))


DIES = """
import os, signal, sys
from gmmcli.data.cache import cached

def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

cached("pets", "1", (2, 8, 8, 1), write)
"""


def test_a_cache_that_was_killed_is_not_there_and_is_written_by_the_next(cache: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIES], check=False).returncode == -signal.SIGKILL
    (left,) = images(cache)
    assert left.name.startswith(".")
    assert (cached("pets", "1", SHAPE, npy) == 7).all()
    (whole,) = images(cache)
    assert not whole.name.startswith(".")


def test_one_writes_and_the_others_wait(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written, found = [], []

    def write(file: BinaryIO) -> None:
        time.sleep(0.2)
        written.append(threading.get_ident())
        npy(file)

    def read() -> None:
        found.append(int(cached("pets", "1", SHAPE, write).sum()))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2 * 64 * 7] * 3 and len(written) == 1
    assert capfd.readouterr().err.count("gmmc: waiting for another process that writes ") == 2


def test_a_cache_without_room_or_rights_is_one_sentence(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cache/gmmc \(1048576\.0 GiB are needed") as error:
        cached("pets", "1", (2**50,), npy)
    assert "XDG_CACHE_HOME" in error.value.hint
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Not a directory"):
        cached("pets", "1", SHAPE, npy)


def test_what_is_there_is_read_without_the_right_to_write(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached("pets", "1", SHAPE, npy)
    monkeypatch.setattr("gmmcli.data.cache._locked", lambda path: pytest.fail("a lock is a file that is written"))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("a folder was made"))
    assert (cached("pets", "1", SHAPE, npy) == 7).all()


def damage_header(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY" + path.read_bytes()[6:].replace(b"descr", b"dexcr"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "garbled": damage_header,
    "of another shape": lambda path: np.save(path, np.zeros((2, 8, 8, 3), np.uint8)),
    "of another type": lambda path: np.save(path, np.zeros(SHAPE, np.int8)),
    "objects": lambda path: np.save(path, np.full(SHAPE, None)),
    "a link": lambda path: path.rename(path.with_name("other")) and path.symlink_to("other"),
    "a link that leads nowhere": lambda path: (path.unlink(), path.symlink_to("gone")),
    "a named pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_whole_is_written_anew_and_no_link_is_followed(damage: Callable[[Path], object], cache: Path) -> None:
    cached("pets", "1", SHAPE, npy)
    (path,) = images(cache)
    damage(path)
    assert (cached("pets", "1", SHAPE, npy) == 7).all()
    assert not path.is_symlink() and not (cache / "gone").exists()
    assert (cached("pets", "1", SHAPE, lambda _: pytest.fail("it is whole")) == 7).all()


def test_a_planted_link_is_not_written_through(cache: Path, tmp_path: Path) -> None:
    cached("pets", "1", SHAPE, npy)
    (lock,), (path,) = cache.glob("*.lock"), images(cache)
    (tmp_path / "precious").write_text("mine")
    lock.unlink()
    lock.symlink_to(tmp_path / "precious")
    path.unlink()
    with pytest.raises(StorageError, match=r"\.lock is a link, or no regular file$"):
        cached("pets", "1", SHAPE, npy)
    lock.unlink()
    path.with_name(f".{os.getpid()}-{path.name}").symlink_to(tmp_path / "precious")
    assert (cached("pets", "1", SHAPE, npy) == 7).all()
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_home_that_cannot_be_written_is_one_sentence(error: OSError, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(DataError, match=rf"cache/gmmc \({error.strerror}\)$") as caught:
        cached("pets", "1", SHAPE, npy)
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(DataError, match="there is no home folder to keep images in") as caught:
        cache_dir()
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == Path.home() / ".cache" / "gmmc"
