from collections.abc import Sequence
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import block_images, blocks, linear
from torch import Tensor

from gmmcli.attacks import audit
from gmmcli.attacks.algorithms import check
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.audit import AT_FOCUS, EPS, FOCUS, SUITE, Curves, Finding, audit_values, findings, format_eps, suite
from gmmcli.attacks.audit import zero_gradients as masked
from gmmcli.attacks.pixel_model import PixelModel, pixel_logits
from gmmcli.attacks.within_ball import over_eps
from gmmcli.metrics.accuracy import proportion
from gmmcli.metrics.intervals import wilson_interval

CHECKS = (
    "zero gradients",
    "flat curve",
    "black box beats white box",
    "unbounded attack does not reach 0",
    "more steps help",
    "margin beats CE by more than 5 points",
)


def curves(others: list[float], eps: Sequence[float] = EPS, **changed: list[float]) -> Curves:
    """Radii at which images fell to every attack, but for those named: ``pgd_ce``, and ``twice`` for the one of twice the steps."""
    named = {"pgd-margin x2 steps" if word == "twice" else word.replace("_", "-"): radii for word, radii in changed.items()}
    fell = dict.fromkeys([*suite(10), *AT_FOCUS], others) | named
    return Curves({name: torch.tensor(radii, dtype=torch.float64) for name, radii in fell.items()}, eps)


def fired(found: list[Finding]) -> set[str]:
    return {verdict.name for verdict in found if verdict.fired}


HONEST = [0.0, 1 / 255, 2 / 255, 4 / 255, FOCUS, FOCUS, 16 / 255, 16 / 255, 32 / 255, 32 / 255]


def test_where_every_attack_agrees_nothing_fires_and_everything_is_said() -> None:
    found = findings(curves(HONEST), 0.0, 10, FOCUS)
    assert [verdict.name for verdict in found] == list(CHECKS)
    assert fired(found) == set()
    assert all(verdict.why for verdict in found)


@pytest.mark.parametrize(
    ("changed", "zero_share", "expected", "why"),
    [
        ({}, 0.011, "zero gradients", "1.1% of the clean images"),
        (
            {"square": [0.0, *HONEST[1:9], 16 / 255]},
            0.0,
            "black box beats white box",
            "10.0% of the images fall to square alone, at 16/255",
        ),
        ({"transfer": [*HONEST[:9], 16 / 255]}, 0.0, "black box beats white box", "fall to square or transfer alone"),
        ({"pgd_dlr": [*HONEST[:9], inf]}, 0.0, "unbounded attack does not reach 0", "at eps = 1 pgd-dlr leaves 10.0%"),
        ({"twice": [*HONEST[:6], FOCUS, *HONEST[7:]]}, 0.0, "more steps help", "leaves 40.0% after 40 steps and 30.0% after 80"),
        ({"pgd_ce": [*HONEST[:4], 16 / 255, *HONEST[5:]]}, 0.0, "margin beats CE by more than 5 points", "by 10.0 points at 8/255"),
    ],
)
def test_each_finding_fires_alone_and_says_what_it_saw(changed: dict[str, list[float]], zero_share: float, expected: str, why: str) -> None:
    found = findings(curves(HONEST, **changed), zero_share, 10, FOCUS)
    assert fired(found) == {expected}
    (verdict,) = [verdict for verdict in found if verdict.name == expected]
    assert why in verdict.why


def test_a_curve_that_an_eightfold_radius_does_not_bend_is_flat() -> None:
    """All at 8/255 and all but one of thirty at 32/255."""
    flat = findings(curves([32 / 255] + 29 * [1.0]), 0.0, 10, FOCUS)
    assert fired(flat) == {"flat curve"}
    assert "pgd-ce leaves 100.0% at 4/255 and 96.7% at 32/255" in flat[1].why


def test_a_curve_that_is_flat_at_chance_is_no_finding() -> None:
    guessing = findings(curves([1.0, 1.0] + 8 * [0.0]), 0.0, 10, FOCUS)
    assert fired(guessing) == set()
    assert fired(findings(curves([1.0, 1.0, 1.0] + 7 * [0.0]), 0.0, 10, FOCUS)) == {"flat curve"}


@pytest.mark.parametrize(
    ("n", "strays", "alone"),
    [(1000, 2, False), (1000, 3, True)],
)
def test_a_black_box_may_find_one_image_in_500_more(n: int, strays: int, alone: bool) -> None:
    own, square = n * [1.0], strays * [FOCUS] + (n - strays) * [1.0]
    assert ("black box beats white box" in fired(findings(curves(own, square=square), 0.0, 10, FOCUS))) == alone


def test_checks_that_the_radii_do_not_allow_are_left_out() -> None:
    found = findings(curves(HONEST, (4 / 255, FOCUS)), 0.0, 10, FOCUS)
    assert [verdict.name for verdict in found] == [
        name for name in CHECKS if name not in ("flat curve", "unbounded attack does not reach 0")
    ]


def test_without_a_black_box_there_is_none_to_fear() -> None:
    every = curves(HONEST)
    found = findings(Curves({name: fell for name, fell in every.fell.items() if name != "square"}, EPS), 0.0, 10, FOCUS)
    assert fired(found) == set()


RADII = st.sampled_from([0.0, *EPS, inf])


@given(st.lists(st.lists(RADII, min_size=6, max_size=6), min_size=1, max_size=5), st.sampled_from(EPS))
@settings(derandomize=True, max_examples=20)
def test_the_worst_case_is_of_each_image_and_never_above_any_attack(fell: list[list[float]], eps: float) -> None:
    attacks = Curves({str(i): torch.tensor(radii) for i, radii in enumerate(fell)}, EPS)
    standing_all = [all(radii[image] > eps for radii in fell) for image in range(6)]
    worst = float((attacks.worst() > eps).double().mean())
    assert worst == pytest.approx(sum(standing_all) / 6)
    assert worst <= min(attacks.accuracy(name, eps) for name in attacks.fell) + 1e-12
    some = attacks.worst(["0"])
    assert torch.equal(some, attacks.fell["0"]) and (attacks.worst() <= some).all()


@given(st.lists(RADII, min_size=1, max_size=9))
@settings(derandomize=True, max_examples=20)
def test_accuracy_falls_with_the_radius(fell: list[float]) -> None:
    attacks = Curves({"a": torch.tensor(fell)}, EPS)
    accuracies = [attacks.accuracy("a", eps) for eps in (0.0, *EPS)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == sum(radius > 0 for radius in fell) / len(fell)


def test_values_are_the_curves_with_intervals_and_one_sentence_to_quote() -> None:
    masked_ce = [*HONEST[:4], 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    found = curves(HONEST, pgd_ce=masked_ce)
    clean = torch.tensor([False] + 9 * [True])
    values = audit_values(found, torch.tensor([True, False, False, False]), clean, 10, FOCUS)
    assert (values["clean_accuracy"], values["clean_ci95"]) == (0.9, list(wilson_interval(9, 10)))
    assert (values["zero_gradient_share"], values["zero_gradient_share_ci95"]) == (0.25, list(wilson_interval(1, 4)))
    assert list(values["worst_case"]) == ["1/255", "2/255", "4/255", "8/255", "16/255", "32/255", "64/255", "1"]
    assert values["worst_case"]["8/255"] == {"accuracy": 0.4, "ci95": list(wilson_interval(4, 10))}
    assert values["attacks"]["pgd-ce"]["8/255"]["accuracy"] == 0.6
    assert all(list(values["attacks"][name]) == ["8/255"] for name in AT_FOCUS)
    assert all(list(values["attacks"][name]) == list(values["worst_case"]) for name in suite(10))
    assert {verdict["name"] for verdict in values["verdicts"] if verdict["fired"]} >= {CHECKS[0], CHECKS[5]}
    low, high = wilson_interval(4, 10)
    assert values["sentence"] == (
        f"Believed robust accuracy at 8/255 (linf, worst case of {len(found.fell)} attacks, n = 10): 40.0% ({low:.1%} to {high:.1%}); "
        "PGD with cross-entropy overstated it by 20.0 points."
    )


def test_transfer_has_a_curve_of_its_own() -> None:
    values = audit_values(curves(HONEST, transfer=HONEST), torch.zeros(0, dtype=torch.bool), torch.ones(10, dtype=torch.bool), 10, FOCUS)
    assert list(values["attacks"]["transfer"]) == list(values["worst_case"])


def small_audit(model: PixelModel, pixels: Tensor, labels: Tensor, n_classes: int) -> Curves:
    """The projected gradients of the suite, at one radius."""
    plan = {name: attack for name, attack in suite(n_classes).items() if attack.kind == "pgd"} | {"pgd-margin x2 steps": audit.TWICE}
    return Curves({name: over_eps(attack, model, pixels, labels, (FOCUS,))[0] for name, attack in plan.items()}, (FOCUS,))


@pytest.mark.parametrize(("scale", "of_ce", "expected"), [(1e4, 1.0, {"zero gradients", CHECKS[5]}), (1.0, 0.5, set())])
def test_an_audit_finds_a_saturated_model_masked_and_the_same_model_unsaturated_not(scale: float, of_ce: float, expected: set[str]) -> None:
    """Distances of 4, 6, 9 and 11/255: half of them are within 8/255."""
    model = blocks(4, scale)
    pixels, labels = block_images(4, (0.03, 0.05, 0.07, 0.09))
    clean = pixel_logits(model, pixels).argmax(1) == labels
    values = audit_values(small_audit(model, pixels, labels, 4), masked(model, pixels, labels), clean, 4, FOCUS)
    assert fired([Finding(**verdict) for verdict in values["verdicts"]]) == expected
    assert values["worst_case"]["8/255"]["accuracy"] == values["attacks"]["pgd-margin"]["8/255"]["accuracy"] == 0.5
    assert values["attacks"]["pgd-ce"]["8/255"]["accuracy"] == of_ce
    assert f"overstated it by {100 * (of_ce - 0.5):.1f} points" in values["sentence"]


@pytest.mark.parametrize(("scale", "expected"), [(1.0, False), (1e4, True)])
def test_zero_gradients_are_those_of_cross_entropy_on_clean_images(scale: float, expected: bool) -> None:
    model = blocks(3, scale)
    pixels, labels = block_images(3)
    assert masked(model, pixels, labels).tolist() == [expected] * 4


def test_only_a_saturated_correct_image_has_a_zero_gradient() -> None:
    """Two of four saturate; where the label is another class, cross-entropy has a gradient."""
    model = blocks(2, scale=50.0)
    pixels, labels = block_images(2, (0.01, 0.2, 0.2, 0.01))
    assert masked(model, pixels, labels).tolist() == [False, True, True, False]
    labels[1] = 1 - labels[1]
    assert masked(model, pixels, labels).tolist() == [False, False, True, False]
    assert masked(linear(torch.zeros(2, 64)), pixels, torch.tensor([0, 1, 1, 1])).all()
    assert masked(model, pixels[:0], labels[:0]).tolist() == []


def test_zero_gradients_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = blocks(2, scale=50.0)
    pixels, labels = block_images(2, (0.01, 0.2, 0.2, 0.01, 0.2))
    whole = masked(model, pixels, labels)
    monkeypatch.setattr(PixelModel, "at_a_time", lambda self, images: 2)
    assert masked(model, pixels, labels).tolist() == whole.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("n_classes", "left_out"),
    [
        (2, {"pgd-dlr", "pgd-dlr-targeted", "apgd-dlr", "apgd-dlr-targeted"}),
        (3, {"pgd-dlr-targeted", "apgd-dlr-targeted"}),
        (4, set()),
    ],
)
def test_the_suite_leaves_out_what_compares_more_logits_than_there_are(n_classes: int, left_out: set[str]) -> None:
    chosen = suite(n_classes)
    assert {attack.name for attack in SUITE} - set(chosen) == left_out
    for name, attack in chosen.items():
        check(attack, n_classes)
        assert attack.name == name
    assert {"pgd-ce", "pgd-margin", "square"} <= set(chosen)


def test_what_the_flat_curve_is_looked_for_over_is_among_the_radii_and_a_factor_of_eight() -> None:
    narrow, wide = audit.EIGHTFOLD
    assert {narrow, wide} <= set(EPS)
    assert wide == pytest.approx(8 * narrow)


def test_no_two_attacks_share_a_name_and_those_at_focus_only_start_elsewhere() -> None:
    assert len(suite(10)) == len(SUITE)
    assert not set(AT_FOCUS) & set(suite(10))
    assert AT_FOCUS["pgd-margin x2 steps"] == Attack("pgd", "margin", steps=2 * suite(10)["pgd-margin"].steps)
    assert FOCUS in EPS


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (0.0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (0.25, "0.25"),
        (0.0314, "0.0314"),
        (1.5, "1.5"),
        (2.0, "2"),
        (3.0, "3"),
    ],
)
def test_a_radius_is_said_as_people_write_it(eps: float, text: str) -> None:
    assert format_eps(eps) == text


@given(st.integers(1, 254))
@settings(derandomize=True, max_examples=30)
def test_what_was_written_in_255ths_is_said_in_255ths(numerator: int) -> None:
    assert format_eps(numerator / 255) == f"{numerator}/255"


def test_shares_of_the_worst_case_are_wilsons() -> None:
    values = audit_values(curves(HONEST), torch.zeros(0, dtype=torch.bool), torch.ones(10, dtype=torch.bool), 10, FOCUS)
    for eps, key in zip(EPS, values["worst_case"], strict=True):
        standing = torch.tensor([radius > eps for radius in HONEST])
        assert values["worst_case"][key]["ci95"] == proportion(standing)["ci95"]
