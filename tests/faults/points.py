"""Points at which a fault can strike: before every file is opened for writing, synced, renamed or removed, and within its first write.

What a crash after an operation leaves is what one before the next leaves: each point stands for both.
"""

import builtins
import errno
import io
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
    """Counts the operations on files below a folder, and lets a fault happen before one of them.

    Args:
        folder: where.
        at: before which of them, counted from 1; 0 for none.
        fault: what happens.
        only: count those alone whose path has this in it.
    """

    def __init__(self, folder: Path, at: int, fault: Callable[[], None], only: str = "") -> None:
        self.folder, self.at, self.fault, self.only, self.passed = str(folder), at, fault, only, 0

    def arm(self) -> None:
        """From now on, and until the process ends."""
        sys.addaudithook(self._hear)
        fsync, opened = os.fsync, io.open

        def synced(descriptor: int) -> None:
            if not self.only:  # it has a number, and no path
                self.pass_by()
            fsync(descriptor)

        def torn(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            file = opened(path, mode, *rest, **more)
            return Torn(file, self) if self._counts(path) and set(mode) & set("wax+") else file

        os.fsync = synced
        io.open = builtins.open = torn  # type: ignore[assignment]  # pathlib's, and everybody else's

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (event in CHANGES or (event == "open" and arguments[2] & WRITING)) and self._counts(arguments[0]):
            self.pass_by()

    def _counts(self, path: Any) -> bool:
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        return name.startswith(self.folder) and self.only in name

    def pass_by(self, first: Callable[[], object] = lambda: None) -> None:
        """Pass a point; where the fault is due, do something ``first``."""
        self.passed += 1
        if self.passed == self.at:
            first()
            self.fault()


class Torn:
    """A file whose first write is a point: a fault leaves half of it."""

    def __init__(self, file: Any, gate: Gate) -> None:
        self._file, self._gate, self._written = file, gate, False

    def write(self, data: Any) -> Any:
        """Write, or half of it and then the fault."""
        if not self._written:
            self._written = True
            self._gate.pass_by(lambda: (self._file.write(data[: len(data) // 2]), self._file.flush()))
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


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
