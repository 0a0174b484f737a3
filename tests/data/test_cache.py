"""A file of the cache is whole or not there, and one process writes it."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from gmmcli.data.cache import cache_dir, cached
from gmmcli.errors import DataError


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


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == Path.home() / ".cache" / "gmmc"
