import os
import pty
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from gmmcli.watch.keys import keys, pressed


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to type; what is typed there comes to stdin, a terminal."""
    typing, terminal = pty.openpty()
    with open(terminal, closefd=True) as stdin:  # noqa: PTH123  # of a descriptor
        monkeypatch.setattr(sys, "stdin", stdin)
        yield typing
    os.close(typing)


def modes() -> int:
    return int(termios.tcgetattr(sys.stdin.fileno())[3])


def test_a_key_comes_at_once_and_the_terminal_is_put_back(keyboard: int) -> None:
    before = modes()
    assert before & termios.ICANON
    with keys() as listening:
        assert listening
        assert not modes() & (termios.ICANON | termios.ECHO)
        assert modes() & termios.ISIG  # Ctrl-C stays a signal
        os.write(keyboard, b"q")
        assert pressed("q", 10)
    assert modes() == before


def test_another_key_is_passed_over_and_none_is_waited_for_no_longer_than_asked(keyboard: int) -> None:
    with keys():
        os.write(keyboard, "xé\x1b[A".encode())
        began = time.monotonic()
        assert not pressed("qQ", 0.2)
        assert time.monotonic() - began >= 0.19
        typing = threading.Timer(0.05, os.write, (keyboard, b"Q"))
        typing.start()
        assert pressed("qQ", 10)
        typing.join()


def test_sigterm_puts_the_terminal_back_and_ends(keyboard: int) -> None:
    before, handler = modes(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, keys():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert modes() == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_without_a_terminal_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:  # noqa: PTH123
        for stdin in (nothing, None):
            monkeypatch.setattr(sys, "stdin", stdin)
            with keys() as listening:
                assert not listening
