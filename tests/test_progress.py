"""Lines on stderr: seldom, informative, and none on stdout."""

import errno
import re
from io import StringIO
from types import SimpleNamespace

import pytest

from gmmcli.progress import PATIENCE, ProgressBar


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("gmmcli.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    return clock


def spoken(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.parametrize(
    ("total", "left"),
    [(160, "1:00 left"), (100 + 59, "0:59 left"), (100 + 3661, "1:01:01 left"), (101, "0:01 left")],
)
def test_a_line_tells_step_rate_remaining_time_and_note(clock: Clock, capsys: pytest.CaptureFixture[str], total: int, left: str) -> None:
    with ProgressBar("digits", total, quiet=False) as bar:
        bar.update(80, "from here")  # a resume: the rate counts from its own first step
        clock.now = 20.0
        bar.update(100, "loss 3")
    assert spoken(capsys) == [f"digits 100/{total}, 1.00 steps/s, {left}, loss 3"]


def test_what_is_counted_may_be_something_else_than_steps(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("study", 12, unit="tasks") as bar:
        bar.update(2, "")
        clock.now = 40.0
        bar.update(4, "digits")
    assert spoken(capsys) == ["study 4/12, 0.05 tasks/s, 2:40 left, digits"]


def test_lines_wait_for_their_turn_except_the_last(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("digits", 100) as bar:
        for step in range(1, 101):
            clock.now += PATIENCE / 32  # a power of two: sums are exact
            bar.update(step, "")
    steps = [line.split()[1] for line in spoken(capsys)]
    assert steps == ["32/100,", "64/100,", "96/100,", "100/100,"]


def test_quiet_silences_all_but_warnings(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("digits", 10, quiet=True) as bar:
        clock.now = 100.0
        bar.update(10, "loss 3")
        bar.warn("beware")
    assert spoken(capsys) == ["beware"]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressBar("digits", 3) as bar:
        bar.update(3, "loss 3")
    text = "\n".join(spoken(capsys))
    assert "3/3" in text
    assert "loss 3" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_figure_of_a_bar_is_cut_off(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    with ProgressBar("pgd-margin", 12_000) as bar:
        bar.update(3456, "loss 3.21, E real 12.3, E sampled 33.2, accuracy 0.987")
    said = capsys.readouterr().err
    assert "…" not in said
    assert ("━" in said) == (width >= 60)
    for figure in ("pgd-margin", "3456/12000", "0:00:00", "3.21", "12.3", "33.2", "0.987"):
        assert figure in said


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_a_terminal_without_colours_gets_none(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(name, value)
    with ProgressBar("digits", 3) as bar:
        bar.update(3, "loss 3")
    said = capsys.readouterr().err
    assert "3/3" in said
    assert not re.search(r"\x1b\[[\d;]*m", said)
    assert name == "NO_COLOR" or "\x1b" not in said


def test_after_a_step_back_rate_and_remaining_time_count_from_there(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("digits", 60) as bar:
        bar.update(0)
        clock.now = 1.0
        bar.update(50)
        bar.update(20, "back")
        clock.now = 11.0
        bar.update(40)
    assert spoken(capsys) == ["digits 40/60, 2.00 steps/s, 0:10 left"]


class Closed(StringIO):
    """A stderr whose reader has gone, as in `gmmc train 2>&1 | head -1`."""

    attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_stderr_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Closed()
    monkeypatch.setattr("sys.stderr", closed)
    bar = ProgressBar("digits", 3, quiet=True)
    bar.warn("gmmc: a warning")
    loud = ProgressBar("digits", 3)
    loud.update(3)
    assert closed.attempts == 2
