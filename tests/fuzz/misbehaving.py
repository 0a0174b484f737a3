"""Verbs that do what must not happen, to see that it is noticed."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import box
from box import CANARY, Box

from gmmcli.errors import DataError


def _refuse(sentence: str) -> Callable[[], None]:
    def verb() -> None:
        raise DataError(sentence)

    return verb


def _say(text: str) -> Callable[[], None]:
    def verb() -> None:
        print(text, file=sys.stderr)
        sys.exit(3)

    return verb


def _hold_memory() -> None:
    bytearray(2 * box.MEMORY)


def _sleep() -> None:
    time.sleep(60)


def _spin() -> None:
    while True:
        pass


def _leave_without_a_word() -> None:
    sys.exit(3)


def _leave_in_another_way() -> None:
    print("gmmc: error: 99", file=sys.stderr)
    sys.exit(99)


def _die() -> None:
    os.abort()


def _write_outside() -> None:
    Path("../outside/x").touch()


def _change_what_is_outside() -> None:
    Path("../outside/canary.txt").write_text("silent")


def _run_what_it_read() -> None:
    Path("..", CANARY).touch()


def _raise() -> None:
    raise AttributeError("no such thing")


VERBS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "good": (lambda: None, []),
    "refusal": (_refuse("no data in x"), []),
    "traceback": (_raise, ["traceback"]),
    "hang": (_sleep, ["time"]),
    "loop": (_spin, ["time"]),
    "memory": (_hold_memory, ["memory"]),
    "death": (_die, ["crash"]),
    "silence": (_leave_without_a_word, ["silent"]),
    "code": (_leave_in_another_way, ["code"]),
    "escape": (_say("gmmc: error: no \x1b[31mdata"), ["text"]),
    "many-lines": (_say("gmmc: error: no\n" * 100), ["text"]),
    "outside": (_write_outside, ["outside"]),
    "canary": (_change_what_is_outside, ["outside"]),
    "ran": (_run_what_it_read, ["ran"]),
}
"""Each verb, and the faults that should be found in it."""


def found(folder: Path, results: Path) -> None:
    """Run every verb and write its faults; in a process of its own, for the limits are lower here."""
    from commands import app

    box.CPU_SECONDS, box.SECONDS = 1, 2
    faults = {}
    for name, (verb, _) in VERBS.items():
        app.command(name)(verb)
        faults[name] = Box(folder / name).run([name]).faults
    results.write_text(json.dumps(faults))
