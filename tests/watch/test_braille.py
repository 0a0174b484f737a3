import pytest

from gmmcli.watch.braille import BLANK, DOTS, braille, value_range


def dots(rows: list[str]) -> list[str]:
    """A drawing as one character a dot, from the top."""
    cells = [[ord(character) - BLANK for character in row] for row in rows]
    return ["".join(".#"[bool(cell & DOTS[x][y])] for cell in row for x in (0, 1)) for row in cells for y in range(4)]


def test_a_rising_line_goes_from_corner_to_corner() -> None:
    rows = braille([(step, float(step)) for step in range(8)], 4, 2, 0.0, 7.0, 7)
    assert dots(rows) == [".......#", "......##", ".....##.", "....##..", "...##...", "..##....", ".##.....", "##......"]


def test_every_row_is_as_wide_as_asked_for_and_of_braille() -> None:
    rows = braille([(1, 3.0), (50, -2.0), (100, 9.0)], 17, 3, -2.0, 9.0, 100)
    assert [len(row) for row in rows] == [17] * 3
    assert all(BLANK <= ord(character) < BLANK + 256 for row in rows for character in row)


def test_a_step_has_its_place_between_zero_and_the_end() -> None:
    drawn = dots(braille([(50, 1.0), (75, 1.0)], 4, 1, 0.0, 2.0, 100))
    assert {column for row in drawn for column, dot in enumerate(row) if dot == "#"} == {4, 5}


def test_gaps_are_bridged_and_jumps_are_connected() -> None:
    drawn = dots(braille([(0, 0.0), (4, 0.0), (5, 1.0), (7, 1.0)], 4, 1, 0.0, 1.0, 7))
    assert drawn == [".....###", ".....#..", ".....#..", "######.."]


def test_of_many_values_in_a_column_the_mean_is_drawn() -> None:
    drawn = dots(braille([(step, float(step % 2)) for step in range(1001)], 2, 1, 0.0, 1.0, 1000))
    assert all(dot == "." for row in (drawn[0], drawn[3]) for dot in row)


@pytest.mark.parametrize(("value", "row"), [(-5.0, 3), (5.0, 0)])
def test_what_lies_outside_the_range_is_at_its_edge(value: float, row: int) -> None:
    assert dots(braille([(0, value), (1, value)], 1, 1, 0.0, 1.0, 1))[row] == "##"


def test_a_single_value_and_a_constant_are_drawn_in_the_middle() -> None:
    assert dots(braille([(3, 1.0)], 1, 1, 1.0, 1.0, 3)) == ["..", ".#", "..", ".."]
    assert dots(braille([(0, 1.0), (3, 1.0)], 1, 1, 1.0, 1.0, 3)) == ["..", "##", "..", ".."]


def test_a_range_is_that_of_all_curves_and_a_spike_among_many_does_not_stretch_it() -> None:
    assert value_range() is value_range([]) is None
    assert value_range([(1, 2.0)], [(1, -3.0), (2, 1.0)]) == (-3.0, 2.0)
    low, high = value_range([(step, 1e9 if step == 7 else step / 200) for step in range(200)]) or (0, 0)
    assert 0 <= low < high < 2
