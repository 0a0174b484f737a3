"""One input: a command in a process and a folder of its own, under limits, and everything that must not come of it."""

import ctypes
import os
import re
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
CANARY = "gmmc-canary"
"""In the name of whatever a hostile input tries to write or run: nobody else makes such a file."""
TRAPS = (Path("/"), Path("/tmp"), Path("/dev/shm"), Path.home())
MEMORY, FILE_SIZE = 2 << 30, 1 << 30
"""Bytes: of address space beyond what the imported modules take, and of a single file."""
CPU_SECONDS, SECONDS = 10, 20
LONGEST_LINE, MOST_LINES = 1100, 24
CODES = frozenset(map(int, re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)))
"""The exit codes that docs/cli.md explains."""
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
OUT_OF_MEMORY = "gmmc: error: out of memory"  # a sentence, but of what should have been refused before
NO_MEMORY = re.compile(r"MemoryError|[Cc]an'?not allocate memory|can't allocate|bad_alloc")


@dataclass(frozen=True)
class Outcome:
    """What became of an input."""

    exit_code: int | None
    """None where it was killed."""
    faults: tuple[str, ...]
    """What must not happen, by a word each: traceback, time, memory, crash, code, silent, text, outside, ran."""
    seconds: float
    peak: int
    """Bytes that were resident at most, the imported modules included."""
    stderr: str


class Box:
    """A folder with a working directory, a home and a folder outside of both, which nothing may touch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work, self.outside = path / "work", path / "outside"
        for folder in (self.work, self.outside, path / "home", path / "tmp"):
            folder.mkdir(parents=True)
        (self.outside / "canary.txt").write_text("sings")
        self._before = self._untouchable()

    def run(self, words: Sequence[str], *, real: bool = False) -> Outcome:
        """Run ``gmmc`` with these words in the working directory.

        Args:
            words: the arguments.
            real: start ``python -m gmmcli``; otherwise fork this process, which has imported it.
        """
        alive, held = os.pipe()  # the child and its children hold one end: it closes when the last of them is gone
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.close(alive)
            os.set_inheritable(held, real)
            self._in_child(words, real)
        os.close(held)
        in_time = bool(select.select([alive], [], [], SECONDS * (2 if real else 1))[0])
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        os.close(alive)
        seconds = time.monotonic() - started
        out, err = ((self.path / name).read_bytes() for name in ("stdout", "stderr"))
        faults = tuple(self._faults(status, in_time, out, err))
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        return Outcome(code, faults, seconds, used.ru_maxrss * 1024, err[-2000:].decode(errors="replace"))

    def _in_child(self, words: Sequence[str], real: bool) -> None:
        code = 70
        try:
            os.setsid()
            os.chdir(self.work)
            os.environ.clear()
            os.environ.update(self._environment())
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for stream, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
            _limit()
            if real:
                os.execv(sys.executable, [sys.executable, "-m", "gmmcli", *words])
            from commands import app

            tempfile.tempdir = None
            sys.argv = ["gmmc", *words]
            app(args=list(words), prog_name="gmmc")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
            with suppress(BaseException):
                sys.stderr.flush()
            os._exit(code)

    def _environment(self) -> dict[str, str]:
        nowhere = "http://127.0.0.1:9"
        return {
            "HOME": str(self.path / "home"),
            "TMPDIR": str(self.path / "tmp"),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "GMMC_OFFLINE": "1",
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        }

    def _faults(self, status: int, in_time: bool, out: bytes, err: bytes) -> Iterator[str]:
        text = err.decode(errors="replace")
        trace = "Traceback (most recent call last)" in text
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if not in_time or number == signal.SIGXCPU:
            yield "time"
        elif number:
            yield "memory" if NO_MEMORY.search(text) else "crash"
        elif trace:
            yield "memory" if NO_MEMORY.search(text.rstrip().rpartition("\n")[2]) else "traceback"
        elif OUT_OF_MEMORY in text:
            yield "memory"
        elif code not in CODES:
            yield "code"
        elif code and not re.search(r"^(gmmc: .|Usage: |│)", text, re.MULTILINE):
            yield "silent"
        if not trace and (_untidy(text) or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", out.decode(errors="replace"))):
            yield "text"
        if self._before != self._untouchable() or any(CANARY in name for trap in TRAPS for name in _names(trap)):
            yield "outside"
        if (self.path / CANARY).exists():
            yield "ran"

    def _untouchable(self) -> dict[str, tuple[int, str]]:
        """What lies in the box beside the places where a command may write."""
        free = {"work", "home", "tmp", "stdout", "stderr", CANARY}
        found = [path for top in self.path.iterdir() if top.name not in free for path in (top, *top.rglob("*"))]
        return {str(path.relative_to(self.path)): (path.lstat().st_mode, _content(path)) for path in found}

    def remove(self) -> None:
        """Delete it, whatever a generator has made of it."""
        try:
            shutil.rmtree(self.path)
        except (OSError, RecursionError):
            subprocess.run(["chmod", "-R", "u+rwx", self.path], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", self.path], check=True)


def _limit() -> None:
    """Set the limits of this process; memory is counted as address space, so that a bomb meets the limit before it takes pages."""
    ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX: glibc reserves 64 MiB for each thread otherwise
    imported = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, imported + MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, resource.getrlimit(what)[1] if what != resource.RLIMIT_CORE else 0))


def _untidy(text: str) -> bool:
    """Whether a terminal would be ill-treated: control characters, overlong lines, too many of them, or more than one error."""
    lines = text.split("\n")
    errors = sum(line.startswith("gmmc: error:") for line in lines)
    return bool(RAW.search(text)) or len(lines) > MOST_LINES or max(map(len, lines)) > LONGEST_LINE or errors > 1


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return []


def _content(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(path.lstat().st_mode) else ""
