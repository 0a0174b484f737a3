"""Keys of a terminal, one by one as they are pressed."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keys() -> Iterator[bool]:
    """Let the terminal pass on each key at once while the block runs, also where SIGTERM ends it.

    Yields:
        Whether there is a terminal to read from.
    """
    if not sys.stdin or not sys.stdin.isatty():
        yield False
        return
    terminal = sys.stdin.fileno()
    before, ended = termios.tcgetattr(terminal), signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tty.setcbreak(terminal, termios.TCSANOW)
    try:
        yield True
    finally:
        signal.signal(signal.SIGTERM, ended)
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def pressed(wanted: str, seconds: float) -> bool:
    """Wait for one of the ``wanted`` keys, so long at most; return whether it was pressed. Other keys are passed over."""
    terminal, until = sys.stdin.fileno(), time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and select.select([terminal], [], [], left)[0]:
        typed = os.read(terminal, 100).decode(errors="ignore")
        if not typed or any(key in wanted for key in typed):  # nothing: the terminal is gone
            return True
    return False
