"""What the watch over the chains makes of lines of metrics.jsonl."""

from typing import Any

import pytest
import torch

from gmmcli.core.means import max_mahalanobis_means
from gmmcli.train.health import EARLY, FAR, PATIENCE, STILL, TOO_MANY, ChainWatch, LossWatch, recognised_energy

HEALTHY: dict[str, Any] = {"step": 1, "energy_data": 3.0, "energy_model": 4.0, "moved": 0.1, "still": 0.0}
STANDING = HEALTHY | {"moved": 1e-6, "still": 1.0}
LOST = HEALTHY | {"energy_data": 37.0, "energy_model": 14_697.0}
"""The energies of the run that this watch was made after."""
DISCRIMINATIVE: dict[str, Any] = {"step": 1, "energy_data": 3.0}


def warned(lines: list[dict[str, Any]], recognised: float | None = 0.0) -> list[int]:
    """At which lines something was said."""
    watch = ChainWatch(recognised)
    return [i for i, line in enumerate(lines, 1) if watch(line)]


@pytest.mark.parametrize("line", [HEALTHY, DISCRIMINATIVE, HEALTHY | {"still": TOO_MANY}, HEALTHY | {"energy_model": FAR * 3.0}])
def test_nothing_is_said_of_what_is_well_or_just_so(line: dict[str, Any]) -> None:
    assert ChainWatch(0.0).complaint(line) is None
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
    complaint = ChainWatch(0.0).complaint(line)
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
    assert warned([line] * 2 * PATIENCE, recognised=None) == []
    assert warned([STANDING] * 2 * PATIENCE, recognised=None) == [PATIENCE]


def test_real_energies_of_nothing_are_no_division_by_zero() -> None:
    line = HEALTHY | {"energy_data": 0.0}
    assert warned([line] * PATIENCE) == [PATIENCE]
    assert ChainWatch(0.0).complaint(line | {"energy_model": 0.0}) is None


@pytest.mark.parametrize("key", ["energy_data", "energy_model", "still"])
def test_what_is_no_number_is_the_guards_business(key: str) -> None:
    assert ChainWatch(0.0).complaint(HEALTHY | {key: float("nan")}) is None


def test_samples_that_are_certainly_of_their_class_are_not_lost_however_low_real_energies_are() -> None:
    """Trained for long, real images come to energies of 0.001, and samples of 0.1 are still drawn well."""
    line = HEALTHY | {"energy_data": 0.001, "energy_model": 0.384}
    assert warned([line] * 2 * PATIENCE, recognised=27.8) == []
    assert warned([line | {"energy_model": 28.0}] * PATIENCE, recognised=27.8) == [PATIENCE]


@pytest.mark.parametrize(("n_classes", "radius"), [(2, 1.0), (10, 10.0)])
def test_below_the_energy_half_way_to_the_nearest_mean_no_other_mean_is_as_near(n_classes: int, radius: float) -> None:
    means = max_mahalanobis_means(n_classes, 16, radius)
    half_way = (means[0] + means[1]) / 2
    assert recognised_energy(means) == pytest.approx(float((half_way - means[0]).square().sum() / 2), rel=1e-5)
    assert recognised_energy(means) == pytest.approx(radius**2 * n_classes / (n_classes - 1) / 4, rel=1e-5)  # of a simplex
    uneven = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    assert recognised_energy(uneven) == pytest.approx(0.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_growing_loss_is_said_once_before_it_diverges(sign: int) -> None:
    watch = LossWatch(10_000)
    said = [watch(sign * loss) for loss in (50.0, 10_000 * EARLY, 618.0, 20.0, 1_022.0)]
    assert [line is not None for line in said] == [False, False, True, False, False]
    assert said[2] is not None
    assert said[2].startswith(f"the loss has grown to {sign * 618} and may diverge")


def test_a_growing_loss_is_not_said_again_or_of_what_is_no_number() -> None:
    assert LossWatch(10_000, warned=True)(9_999.0) is None
    assert LossWatch(10_000)(float("nan")) is None
