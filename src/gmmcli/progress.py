"""Progress: a bar on a terminal, plain lines elsewhere, all on stderr."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from gmmcli.layout import fitted

PATIENCE = 5.0  # seconds between two plain lines
ROOM = 60  # columns of a terminal that has space for a bar beside the figures


class _Bar(Progress):
    """Title, bar and figures, of which only the bar is ever shortened, and the note below."""

    def __init__(self, console: Console) -> None:
        figures = [kind(table_column=Column(no_wrap=True)) for kind in (MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn)]
        title = TextColumn("{task.description}", table_column=Column(overflow="fold"))
        bar = [BarColumn(bar_width=None)] if console.width >= ROOM else []
        super().__init__(title, *bar, *figures, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar and the note, as rich asks for them."""
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["note"]:
                yield Text(task.fields["note"])


class ProgressBar:
    """Progress with rate and remaining time; ``with ProgressBar(...) as bar: bar.update(step, "loss 3.2")``."""

    def __init__(self, title: str, total: int, quiet: bool = False, unit: str = "steps") -> None:
        self.title = title
        self.unit = unit
        self.total = total
        self.quiet = quiet
        console = live_console(stderr=True)
        self._bar: _Bar | None = None
        if console.is_terminal and not console.is_dumb_terminal and not quiet:
            self._bar = _Bar(console)
            self._task = self._bar.add_task(title, total=total, note="")
        self._started = self._printed = time.monotonic()
        self._first: int | None = None
        self._last = 0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            with suppress(OSError):  # the terminal is closed
                self._bar.stop()

    def update(self, step: int, note: str = "") -> None:
        """Report that this many are done."""
        if self._bar:
            self._bar.update(self._task, completed=step, note=note)
            return
        now = time.monotonic()
        if self._first is None or step < self._last:  # at the start, or after a rollback
            self._first, self._started = step, now
        self._last = step
        if self.quiet or (now - self._printed < PATIENCE and step < self.total):
            return
        self._printed = now
        rate = (step - self._first) / (now - self._started) if step > self._first else 0.0
        left = f"{rate:.2f} {self.unit}/s, {clock((self.total - step) / rate)} left" if rate else ""
        say(", ".join(part for part in (f"{self.title} {step}/{self.total}", left, note) if part))

    def warn(self, line: str) -> None:
        """Print a line even if quiet."""
        say(line)


def live_console(stderr: bool = False) -> Console:
    """The terminal, for what is drawn on it again and again; with NO_COLOR without colours, bold letters and their kin."""
    return Console(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


def _print(line: str) -> None:
    with suppress(OSError):  # nobody reads on, as in `gmmc train 2>&1 | head -1`: no reason to lose a training
        print(fitted(line, sys.stderr), file=sys.stderr, flush=True)


_tell: ContextVar[Callable[[str], None]] = ContextVar("tell", default=_print)


def say(line: str) -> None:
    """Print a line on stderr; within ``saying``, give it to whom that names."""
    _tell.get()(line)


@contextmanager
def saying(tell: Callable[[str], None]) -> Iterator[None]:
    """Give what is said to a function: a program that imports gmmcli wants nothing printed."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def clock(seconds: float) -> str:
    """A time as a clock shows it, ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def image_progress(title: str, n: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show how many of n images are done."""
    with ProgressBar(title, n, quiet, unit="images") as bar:
        yield bar.update
