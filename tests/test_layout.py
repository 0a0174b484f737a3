import os
import shutil
import sys
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.layout import Table, columns_of, fitted, lines, show, width_of

RUNS = Table(rows=[("2026-01-01T000000Z-one", "finished", "", "a=1 b=2"), ("2026-01-02T000000Z-two", "killed", "step 3", "")])
SCORES = Table(("score", "AUROC", "FPR95"), [("log p(x)", "0.574 [0.412, 0.719]", "0.967"), ("max p(y|x)", "0.374 [0.241, 0.519]", "")])


class Terminal(StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_columns_stand_below_each_other() -> None:
    assert RUNS.lines(None) == ["2026-01-01T000000Z-one  finished          a=1 b=2", "2026-01-02T000000Z-two  killed    step 3"]
    assert SCORES.lines(47) == [
        "score       AUROC                 FPR95",
        "log p(x)    0.574 [0.412, 0.719]  0.967",
        "max p(y|x)  0.374 [0.241, 0.519]",
    ]
    assert Table().lines(40) == []


@pytest.mark.parametrize("width", [16, 40])
def test_a_narrow_terminal_gets_the_first_cell_above_the_others_and_every_word_whole(width: int) -> None:
    narrow = RUNS.lines(width)
    assert all(len(line) <= width or line in [row[0] for row in RUNS.rows] for line in narrow)
    assert "".join(narrow).replace(" ", "") == "".join(cell for row in RUNS.rows for cell in row).replace(" ", "")
    if width == 40:
        assert narrow == ["2026-01-01T000000Z-one", "  finished  a=1 b=2", "2026-01-02T000000Z-two", "  killed  step 3"]


def test_on_a_narrow_terminal_each_of_several_values_has_its_heading() -> None:
    assert SCORES.lines(38) == [
        "score: log p(x)",
        "  AUROC: 0.574 [0.412, 0.719]",
        "  FPR95: 0.967",
        "score: max p(y|x)",
        "  AUROC: 0.374 [0.241, 0.519]",
    ]
    assert SCORES.lines(27)[1:3] == ["  AUROC:", "    0.574 [0.412, 0.719]"]
    assert SCORES.lines(20)[1:4] == ["  AUROC: 0.574", "    [0.412, 0.719]", "  FPR95: 0.967"]


def test_one_value_has_its_heading_once() -> None:
    table = Table(("metric", "value [95% interval]"), [("nll", "0.1 [0.0, 0.2]"), ("  class fox", "no images")])
    assert table.lines(24) == ["metric", "  value [95% interval]", "nll", "  0.1 [0.0, 0.2]", "  class fox", "    no images"]


def test_sentences_are_broken_beside_the_other_cells_or_below_them() -> None:
    table = Table(rows=[("digits", "1,257 training images of ten digits"), ("mnist", "60,000")], sentences=True)
    assert table.lines(34) == ["digits  1,257 training images of", "        ten digits", "mnist   60,000"]
    assert table.lines(30) == ["digits", "  1,257 training images of", "    ten digits", "mnist", "  60,000"]


def test_a_word_that_has_no_space_beside_other_cells_stands_below_them() -> None:
    table = Table(rows=[("system", "Linux-6.18.44-x86_64-with-glibc2.36"), ("cpu", "a fast one")], sentences=True)
    assert table.lines(36) == ["system", "  Linux-6.18.44-x86_64-with-glibc2.36", "cpu     a fast one"]


def test_words_of_two_columns_a_letter_are_aligned() -> None:
    assert columns_of("猫") == 2
    assert Table(rows=[("猫", "x"), ("cat", "y")]).lines(None) == ["猫   x", "cat  y"]


def test_sentences_paths_and_tables_stand_below_each_other() -> None:
    path = Path("a long path of a picture that somebody took.png")
    assert lines(["one two three", RUNS, path], 40) == ["one two three", "", *RUNS.lines(40), "", str(path)]
    assert lines([RUNS, "", ""], None) == RUNS.lines(None)
    assert lines(["one two three"], 8) == ["one two", "three"]


def test_control_characters_are_shown_as_escapes() -> None:
    assert lines(["a\x1b[31m\u202e", Table(("x\x07", "y"), [("\n", "")])], None) == ["a\\x1b[31m\\u202e", "", "x\\x07  y", "\\n"]


def test_a_terminal_has_a_width_and_a_pipe_has_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "8")
    assert (width_of(Terminal()), width_of(StringIO())) == (8, None)
    assert (fitted("one two three", Terminal()), fitted("one two three", StringIO())) == ("one two\nthree", "one two three")
    show("one two three")
    assert capsys.readouterr().out == "one two three\n"


def test_a_terminal_that_does_not_know_its_width_has_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((0, 0)))
    assert shutil.get_terminal_size().columns == width_of(Terminal()) == 80


@pytest.mark.parametrize(("terminal", "printed"), [(True, r"a\x1b[31m\nb.png"), (False, "a\x1b[31m\nb.png")])
def test_a_path_is_exact_but_harmless_on_a_terminal(
    terminal: bool, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    show(Path("a\x1b[31m\nb.png"))
    assert capsys.readouterr().out == f"{printed}\n"


CELLS = st.lists(st.text("ab9[].猫", min_size=1, max_size=12), max_size=4).map(" ".join)


@settings(max_examples=50)
@given(
    st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=4)),
    st.booleans(),
    st.integers(1, 60),
)
def test_no_table_loses_or_breaks_a_word_at_any_width(rows: list[list[str]], sentences: bool, width: int) -> None:
    for table in (Table(rows=rows, sentences=sentences), Table(rows[0], rows[1:], sentences=sentences)):
        narrow = table.lines(width)
        assert not words([cell for row in table.rows for cell in row]) - words(narrow)
        assert all(columns_of(line) <= width or " " not in line.strip() for line in narrow)


def words(text: list[str]) -> Counter[str]:
    return Counter(" ".join(text).replace(":", " ").split())
