"""What the watch over the chains makes of lines of metrics.jsonl."""

from typing import Any

import pytest

from gmmcli.train.health import FAR, PATIENCE, STILL, TOO_MANY, ChainWatch

HEALTHY: dict[str, Any] = {"step": 1, "energy_data": 3.0, "energy_model": 4.0, "moved": 0.1, "still": 0.0}
STANDING = HEALTHY | {"moved": 1e-6, "still": 1.0}
LOST = HEALTHY | {"energy_data": 37.0, "energy_model": 14_697.0}
"""The energies of the run that this watch was made after."""
DISCRIMINATIVE: dict[str, Any] = {"step": 1, "energy_data": 3.0}


def warned(lines: list[dict[str, Any]], never_negative: bool = True) -> list[int]:
    """At which lines something was said."""
    watch = ChainWatch(never_negative)
    return [i for i, line in enumerate(lines, 1) if watch(line)]


@pytest.mark.parametrize("line", [HEALTHY, DISCRIMINATIVE, HEALTHY | {"still": TOO_MANY}, HEALTHY | {"energy_model": FAR * 3.0}])
def test_nothing_is_said_of_what_is_well_or_just_so(line: dict[str, Any]) -> None:
    assert ChainWatch(True).complaint(line) is None
    assert warned([line] * 20) == []


def test_half_a_grey_level_is_the_least_that_counts_as_moving() -> None:
    assert pytest.approx(0.5 * 2 / 255) == STILL  # 255 grey levels between -1 and 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (STANDING, "100% of the chains no longer move"),
        (HEALTHY | {"still": 0.51}, "51% of the chains no longer move"),
        (LOST, "samples have 397 times the energy of real images"),
        (STANDING | LOST | {"still": 1.0}, "100% of the chains no longer move"),
    ],
)
def test_a_complaint_says_what_is_wrong_and_what_to_set(line: dict[str, Any], says: str) -> None:
    complaint = ChainWatch(True).complaint(line)
    assert complaint is not None
    assert complaint.startswith(says)
    assert "chains.sampler" in complaint


@pytest.mark.parametrize("line", [STANDING, LOST])
def test_it_is_said_once_after_so_many_lines_in_a_row(line: dict[str, Any]) -> None:
    assert warned([line] * (PATIENCE - 1)) == []
    assert warned([line] * 5 * PATIENCE) == [PATIENCE]


@pytest.mark.parametrize("well", [HEALTHY, DISCRIMINATIVE])
def test_a_healthy_line_between_begins_the_count_anew_and_a_relapse_is_said(well: dict[str, Any]) -> None:
    assert warned(([STANDING] * (PATIENCE - 1) + [well]) * 5) == []
    first = [STANDING] * (PATIENCE + 3)
    assert warned([*first, well, *first]) == [PATIENCE, len(first) + 1 + PATIENCE]


def test_different_complaints_count_as_one_illness() -> None:
    assert warned([STANDING, LOST] * PATIENCE) == [PATIENCE]


@pytest.mark.parametrize("line", [LOST, HEALTHY | {"energy_data": -3.0, "energy_model": 1.0}])
def test_energies_of_either_sign_are_not_compared(line: dict[str, Any]) -> None:
    assert warned([line] * 2 * PATIENCE, never_negative=False) == []
    assert warned([STANDING] * 2 * PATIENCE, never_negative=False) == [PATIENCE]


def test_real_energies_of_nothing_are_no_division_by_zero() -> None:
    line = HEALTHY | {"energy_data": 0.0}
    assert warned([line] * PATIENCE) == [PATIENCE]
    assert ChainWatch(True).complaint(line | {"energy_model": 0.0}) is None


@pytest.mark.parametrize("key", ["energy_data", "energy_model", "still"])
def test_what_is_no_number_is_the_guards_business(key: str) -> None:
    assert ChainWatch(True).complaint(HEALTHY | {key: float("nan")}) is None
