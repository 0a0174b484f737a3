import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import EPS, GAPS, PGD, Toy, saved

from gmmcli.attacks import audit as audits
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.attacks.within_ball import over_eps
from gmmcli.errors import DivergedError
from gmmcli.evaluate import audit as auditing
from gmmcli.evaluate.audit import audit
from gmmcli.evaluate.carlini import carlini
from gmmcli.evaluate.robustness import robust_accuracy
from gmmcli.evaluate.subject import Subject


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit of three attacks, a fourth at 8/255, and two radii, whose figures stay empty."""
    monkeypatch.setattr(
        audits, "SUITE", (Attack("pgd", "ce", steps=2), Attack("pgd", "margin", steps=2), Attack("square", "margin", steps=20))
    )
    monkeypatch.setattr(audits, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=4)})
    monkeypatch.setattr(audits, "EPS", (4 / 255, 8 / 255))
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])


def fired(result: dict[str, Any]) -> set[str]:
    return {verdict["name"] for verdict in result["values"]["verdicts"] if verdict["fired"]}


def test_the_audit_of_a_saturated_run_distrusts_cross_entropy_and_that_of_another_does_not(toy: Toy, small: None) -> None:
    masked, honest = audit(toy(scale=1e4, name="masked")), audit(toy(name="honest"))
    assert fired(masked.result) == {"zero gradients", "margin beats CE by more than 5 points"}
    assert fired(honest.result) == set()
    assert len(masked.warnings) == 2 and not honest.warnings
    for measured in (masked, honest):
        values = measured.result["values"]
        assert {eps: row["accuracy"] for eps, row in values["worst_case"].items()} == {"4/255": 0.75, "8/255": 0.25}
        assert values["clean_accuracy"] == 1.0
        assert all(
            row["accuracy"] >= values["worst_case"][eps]["accuracy"] for rows in values["attacks"].values() for eps, row in rows.items()
        )
    assert "overstated it by 75.0 points" in masked.result["values"]["sentence"]
    assert "overstated it by 0.0 points" in honest.result["values"]["sentence"]


def test_an_audit_is_saved_with_the_radius_at_which_each_image_fell_to_each_attack(toy: Toy, small: None) -> None:
    subject = toy()
    result = audit(subject).result
    assert result == subject.run.result("attack audit")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    kept = saved(subject, "attack-audit")
    assert set(kept) == {"pgd-ce", "pgd-margin", "square", "pgd-margin_x2_steps", "labels"}
    worst = np.min([fell for name, fell in kept.items() if name != "labels"], axis=0)
    assert worst.tolist() == pytest.approx([4 / 255 if gap == 6 else 8 / 255 if gap < 20 else inf for gap in GAPS])
    assert set(result["protocol"]["attacks"]) == {"pgd-ce", "pgd-margin", "square", "pgd-margin x2 steps"}


def test_what_a_run_of_few_classes_cannot_be_audited_with_is_named(toy: Toy) -> None:
    subject = toy(n_classes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audits, "SUITE", tuple(replace(attack, steps=1) for attack in audits.SUITE))
        patch.setattr(audits, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=2)})
        patch.setattr(audits, "EPS", (8 / 255,))
        patch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
        protocol = audit(subject).result["protocol"]
    assert protocol["left_out"] == ["pgd-dlr-targeted", "apgd-dlr-targeted"]
    assert protocol["gradient"] == "of each image's own loss"  # what tells results from those of the mean over a batch
    assert "pgd-dlr" in protocol["attacks"] and "pgd-dlr-targeted" not in protocol["attacks"]


def interrupted_audit(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Interrupt an audit during its third attack; return the names of those that were done, to which the caller may add."""
    done: list[str] = []

    def interrupted(attack: Attack, *more: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(attack.name)
        return over_eps(attack, *more)

    monkeypatch.setattr(auditing, "over_eps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit(subject)
    return done


def test_an_interrupted_audit_goes_on_where_it_stopped_and_ends_as_an_undisturbed_one(
    toy: Toy, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, undisturbed = toy(name="a"), audit(toy(name="b")).result
    done = interrupted_audit(subject, monkeypatch)
    assert done == ["pgd-ce", "pgd-margin"]
    assert subject.run.result("attack audit") is None
    assert subject.model.training

    repeated: list[int] = []

    def counted(attack: Attack, *more: Any) -> Any:
        repeated.append(attack.steps)
        return over_eps(attack, *more)

    monkeypatch.setattr(auditing, "over_eps", counted)
    result = audit(subject).result
    assert repeated == [20, 4]
    assert (result["values"], result["protocol"]) == (undisturbed["values"], undisturbed["protocol"])
    assert sorted(path.name for path in (subject.run.path / "results").iterdir()) == ["attack-audit.json", "attack-audit.npz"]
    audit(subject)
    assert repeated[2:] == [2, 2, 20, 4]


@pytest.mark.parametrize("other", [{"seed": 2, "n": 6}, {"n": 6}, {"step": 8}, {"split": "validation"}])
def test_an_audit_does_not_go_on_with_one_of_something_else(
    other: dict[str, Any], toy: Toy, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = toy()
    done = interrupted_audit(subject, monkeypatch)
    monkeypatch.setattr(auditing, "over_eps", lambda attack, *more: done.append(attack.name) or over_eps(attack, *more))
    audit(replace(subject, **other))
    assert len(done) == 2 + 4


def test_what_deceives_another_run_is_tried_too(toy: Toy, small: None) -> None:
    """Two runs of the same boundaries: what deceives the one deceives the other."""
    subject, other = toy(name="a"), toy(scale=3.0, name="b")
    result = audit(subject, transfer=other).result
    values = result["values"]
    assert result["protocol"]["transfer_from"] == "b"
    assert {eps: row["accuracy"] for eps, row in values["attacks"]["transfer"].items()} == {"4/255": 0.75, "8/255": 0.25}
    assert "worst case of 5 attacks" in values["sentence"]
    assert "transfer" in saved(subject, "attack-audit")


@pytest.mark.parametrize("shift", [0, 1])
def test_there_may_be_nothing_left_to_transfer(shift: int, toy: Toy, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image has fallen before the last radius, or the other run classifies none of them correctly."""
    monkeypatch.setattr(audits, "EPS", (8 / 255, 0.2, 1.0))
    subject, other = toy(name="a"), toy(name="b")
    other.model.head.weight.data = other.model.head.weight.data.roll(shift, 0)
    values = audit(subject, transfer=other).result["values"]
    assert values["attacks"]["transfer"]["1"]["accuracy"] == float(shift)


def test_an_audit_is_drawn_in_the_run_or_where_one_says(toy: Toy, small: None, tmp_path: Path) -> None:
    subject = toy()
    figures = subject.run.path / "figures"
    assert audit(subject).pictures == [figures / "attack-audit.png", figures / "attack-audit.svg"]
    assert audit(subject, out=tmp_path / "new" / "x.png").pictures == [tmp_path / "new" / "x.png", tmp_path / "new" / "x.svg"]


def test_the_picture_of_other_images_does_not_take_the_place_of_the_runs_own(toy: Toy, small: None) -> None:
    subject = toy()
    other = replace(subject, split="validation")
    for about in (subject, other):
        assert audit(about).pictures[0] == subject.run.path / "figures" / f"{about.name('attack audit').replace(' ', '-')}.png"


def test_an_audit_of_nothing_right_believes_in_nothing(toy: Toy, small: None) -> None:
    values = audit(toy(shift=1)).result["values"]
    assert values["clean_accuracy"] == values["zero_gradient_share"] == 0.0
    assert {row["accuracy"] for row in values["worst_case"].values()} == {0.0}


def test_a_model_that_is_not_finite_has_no_robustness(toy: Toy, small: None) -> None:
    subject = toy(scale=nan)
    subject.images.labels.zero_()
    for measure in (lambda: robust_accuracy(subject, PGD, EPS), lambda: carlini(subject, CarliniWagner(steps=1)), lambda: audit(subject)):
        with pytest.raises(DivergedError, match="not finite"):
            measure()
