"""Points at which a fault can strike a training: before every file is opened for writing, synced, renamed or removed."""

import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

DEATH = 86  # exit code
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


class Gate:
    """Counts the operations on files below a folder, and lets a fault happen before one of them."""

    def __init__(self, folder: Path, at: int, fault: Callable[[], None]) -> None:
        self.folder, self.at, self.fault, self.passed = str(folder), at, fault, 0

    def arm(self) -> None:
        """From now on, and until the process ends."""
        sys.addaudithook(self._hear)
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            self._pass()
            fsync(descriptor)

        os.fsync = synced

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            path = arguments[0]
            if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(self.folder):
                self._pass()

    def _pass(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            self.fault()


def die() -> None:
    """As a kill -9 does: nothing is flushed, nothing cleaned up."""
    os._exit(DEATH)


def full() -> None:
    """As of a disk that has no room for this, and for the next time has."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Do something in a forked process without output; return its exit code, and what it returned if it came to its end."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # noqa: PTH123 - a string
            code = 0
            try:
                answer = work()
            except SystemExit as end:
                code, answer = int(end.code or 0), None
            except BaseException as error:
                code, answer = 99, f"{type(error).__name__}: {error}"
            os.write(writer, json.dumps(answer).encode())
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None
