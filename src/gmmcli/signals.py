"""Ctrl-C, SIGTERM and a closed terminal as a request to stop, SIGUSR1 as one to save, which a loop checks between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """While active, the first signal only sets ``received``; a second one has its default effect, in case the loop hangs.

    SIGUSR1 only sets ``save``, as often as it comes.

    Not a second SIGHUP: the shell and the kernel each send one when a terminal is closed. A ``launched`` process never loses patience: a
    launcher passes on the signal that the process has had itself, and kills what hangs.
    """

    def __init__(self, launched: bool = False) -> None:
        self.received: signal.Signals | None = None
        self.save = False
        self.launched = launched
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._note_to_save)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup has it ignored
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore(*self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self.launched:
            self._restore(*self._previous.keys() - {signal.SIGHUP, signal.SIGUSR1})

    def _note_to_save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def wish(self) -> int:
        """What was asked for since the last call: 0 nothing, 1 to save, 2 to stop, which saves too and is asked for from then on."""
        save, self.save = self.save, False
        return 2 if self.received else int(save)

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            signal.signal(number, self._previous[number])
