"""The first signal is a wish, the second is a signal."""

import os
import signal
from collections.abc import Iterator

import pytest

from gmmcli.signals import StopSignals

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_on_a_terminal() -> Iterator[None]:
    """A shell's background jobs are born deaf to Ctrl-C, and nohup's to SIGHUP."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGHUP, before[1])


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in ALL]


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_only_sets_received_and_hands_the_handlers_back(number: signal.Signals) -> None:
    before = handlers()
    with StopSignals() as stop:
        assert stop.received is None
        assert all(now != then for now, then in zip(handlers(), before, strict=True))
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert [n for n, now, then in zip(ALL, handlers(), before, strict=True) if now != then] == [signal.SIGHUP]
    assert handlers() == before


def test_sigusr1_asks_to_save_as_often_as_it_comes_and_stops_nothing() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as stop:
        assert stop.wish() == 0
        for _ in range(2):
            for _ in range(2):
                signal.raise_signal(signal.SIGUSR1)
            assert (stop.received, stop.wish(), stop.wish()) == (None, 1, 0)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)  # its usual effect would be the end
        assert (stop.wish(), stop.wish()) == (2, 2)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_closed_terminal_hangs_up_more_than_once() -> None:
    """The shell sends SIGHUP, and the kernel another one when the shell has gone."""
    heard: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    with StopSignals() as stop:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
        assert stop.received == signal.SIGHUP
    assert heard == []


def test_a_second_ctrl_c_acts_as_usual() -> None:
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.received == signal.SIGTERM


def test_what_a_launcher_started_waits_to_be_killed() -> None:
    before = handlers()
    with StopSignals(launched=True) as stop:
        for number in ALL:
            signal.raise_signal(number)
        assert stop.received == signal.SIGHUP
    assert handlers() == before


def test_handlers_are_restored_without_a_signal_and_after_an_error() -> None:
    before = handlers()
    with StopSignals() as stop:
        pass
    assert (handlers(), stop.received) == (before, None)
    with pytest.raises(ZeroDivisionError), StopSignals():
        _ = 1 / 0
    assert handlers() == before


def test_a_handler_of_the_surrounding_program_comes_back() -> None:
    heard: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert (stop.received, heard) == (signal.SIGTERM, [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
