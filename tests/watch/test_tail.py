import json
from itertools import pairwise
from pathlib import Path

import pytest
from running import line, logged

from gmmcli.storage import write_text
from gmmcli.watch.tail import MOST_POINTS, Curve, Tail


@pytest.fixture
def tail(tmp_path: Path) -> Tail:
    return Tail(tmp_path / "metrics.jsonl")


def test_each_look_returns_what_is_new(tail: Tail, tmp_path: Path) -> None:
    assert tail.look() == ([], False)  # no file yet
    logged(tmp_path, line(1), line(2))
    assert tail.look() == ([line(1), line(2)], True)
    assert tail.look() == ([], False)
    logged(tmp_path, line(3))
    assert tail.look() == ([line(3)], False)


def test_a_look_at_a_long_file_reads_only_its_end(tail: Tail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(line(1)) + "\n"
    tail.path.write_text(text * 100_000)
    assert len(tail.look()[0]) == 100_000
    logged(tmp_path, line(2))
    read: list[int] = []
    opened = Path.open

    def counting(path: Path, *modes: str) -> object:
        file = opened(path, *modes)
        original = file.read

        class Counted:
            fileno, seek = file.fileno, file.seek

            def read(self, *size: int) -> bytes:
                found: bytes = original(*size)
                read.append(len(found))
                return found

            def __enter__(self) -> "Counted":
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

        return Counted()

    monkeypatch.setattr(Path, "open", counting)
    assert tail.look() == ([line(2)], False)
    assert read == [len(json.dumps(line(2))) + 1]


def test_a_torn_last_line_waits_for_its_end(tail: Tail) -> None:
    whole = json.dumps(line(7)) + "\n"
    with tail.path.open("w") as file:
        for part, found in ((whole[:20], []), (whole[20:-1], []), (whole[-1:], [line(7)])):
            file.write(part)
            file.flush()
            assert tail.look()[0] == found


def test_lines_that_a_crash_cut_short_are_left_out(tail: Tail, tmp_path: Path) -> None:
    tail.path.write_text('{"step": 1, "lo\n[1, 2]\n\xff\n' + "[" * 100_000 + "\n")
    logged(tmp_path, line(2))
    assert tail.look()[0] == [line(2)]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_a_resume_wrote_anew_is_read_from_its_start(tail: Tail, tmp_path: Path, replaced: bool) -> None:
    logged(tmp_path, line(1), line(2), line(3))
    tail.look()
    kept = json.dumps(line(1)) + "\n"
    if replaced:
        write_text(tail.path, kept + kept + kept + kept)  # longer: its size alone would not tell
    else:
        tail.path.write_text(kept)
    assert tail.look() == ([line(1)] * (4 if replaced else 1), True)


def test_a_curve_of_any_length_stays_short_and_even() -> None:
    curve = Curve()
    for step in range(50_000):
        curve.add(step, step / 2)
    steps = [step for step, _ in curve.points]
    assert MOST_POINTS / 2 <= len(steps) <= MOST_POINTS
    assert len({after - before for before, after in pairwise(steps)}) == 1
    assert (steps[0], curve.last) == (0, 24_999.5)
    assert steps[-1] >= 50_000 - 2 * (steps[1] - steps[0])


def test_a_curve_forgets_what_will_be_taken_again() -> None:
    curve = Curve()
    for step in range(10):
        curve.add(step, 0.0)
    curve.forget_after(4)
    assert [step for step, _ in curve.points] == [0, 1, 2, 3, 4]
