"""``python -m gmmcli`` forked from a server that has imported torch once for all: a child costs a second, not five."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(  # the last is what torch.optim imports when the first optimiser is built: seconds
    ["gmmcli.cli.app", "gmmcli.train.loop", "gmmcli.train.plan", "gmmcli.evaluate.detection", "torch._dynamo"]
)


def gmmc() -> BaseProcess:
    """Start ``python -m gmmcli`` with the arguments of ``sys.argv``."""
    process = CONTEXT.Process(target=runpy.run_module, args=("gmmcli", None, "__main__"))
    process.start()
    return process


def gmmc_on(terminal: str) -> BaseProcess:
    """As ``gmmc``, at a terminal, by the name of its device."""
    process = CONTEXT.Process(target=_run_on, args=(terminal,))
    process.start()
    return process


def _run_on(terminal: str) -> None:
    """In the child: the terminal's process."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as from a login, even where the tests run under nohup
    device = os.open(terminal, os.O_RDWR)  # the first that the leader of a session opens controls it
    for stream in range(3):
        os.dup2(device, stream)
    os.close(device)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w") for stream in (1, 2))  # the old ones may be of a file, which can seek
    try:
        runpy.run_module("gmmcli", None, "__main__")
    except SystemExit as end:
        os._exit(int(end.code or 0))  # without multiprocessing's last flush, which a closed terminal refuses


def _run(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """In the child: what ``Popen`` was asked for."""
    os.setsid()
    os.environ |= environment
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    sys.argv = ["gmmc", *arguments]
    runpy.run_module("gmmcli", None, "__main__")


@contextmanager
def stopped(number: signal.Signals, when: Callable[[], bool]) -> Iterator[None]:
    """Send ourselves a signal once this is so."""
    over, patience = threading.Event(), time.monotonic() + 120

    def stop() -> None:
        while not over.wait(0.05):
            if when() or time.monotonic() > patience:
                os.kill(os.getpid(), number)
                return

    watcher = threading.Thread(target=stop)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class Popen:
    """As much of ``subprocess.Popen`` as a study needs."""

    def __init__(
        self, command: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], start_new_session: bool, **streams: Any
    ) -> None:
        python, option, module, *arguments = command
        assert (python, option, module) == (sys.executable, "-m", "gmmcli")
        assert start_new_session
        self.process = CONTEXT.Process(target=_run, args=(arguments, Path(stdout.name), dict(env)))
        self.process.start()

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int:
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


SUBPROCESS = SimpleNamespace(Popen=Popen, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
"""What stands in for the module where children are to be forked."""
