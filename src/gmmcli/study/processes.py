"""Child processes of gmmc: they share the cores and are stopped together."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gmmcli.errors import StoppedError


@dataclass
class Processes:
    """Runs gmmc commands, up to ``jobs`` at a time, each called from a thread of its own."""

    jobs: int = 1
    stopping: threading.Event = field(default_factory=threading.Event)
    _running: set["subprocess.Popen[bytes]"] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, call: Sequence[str], log: Path) -> int:
        """Run ``gmmc`` to its end, with its output appended to a log, and return its exit code.

        It gets a session of its own, so that Ctrl-C reaches it only through ``stop``, and its share of the cores.
        """
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        with log.open("ab") as file:
            file.write(f"$ gmmc {' '.join(call)}\n".encode())
            file.flush()
            with self._lock:
                if self.stopping.is_set():
                    return StoppedError.exit_code
                process = subprocess.Popen(
                    [sys.executable, "-m", "gmmcli", *call],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={"OMP_NUM_THREADS": threads} | os.environ,
                    start_new_session=True,
                )
                self._running.add(process)
            exit_code = process.wait()
            with self._lock:
                self._running.discard(process)
        return exit_code

    def stop(self) -> None:
        """Send SIGTERM to all that run, and start no more."""
        with self._lock:
            self.stopping.set()
            for process in self._running:
                process.terminate()


def last_message(log: Path) -> str:
    """Return the last error, else the last message, of the last command in a log."""
    output = log.read_text(errors="replace").rpartition("\n$ gmmc ")[2]
    lines = [line for line in output.splitlines() if line.startswith("gmmc: ")]
    last = next((line for line in reversed(lines) if "error:" in line), lines[-1] if lines else f"see {log}")
    return last.removeprefix("gmmc: ").removeprefix("error: ")
