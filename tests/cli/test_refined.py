"""``--refine`` of ``gmmc eval accuracy`` and ``gmmc attack``."""

import json
import shutil
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from animals import Gmmc, Trained

from gmmcli.attacks import audit as audits
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.expectation import DRAWS
from gmmcli.cli import attack as commands

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run, whose figures stay empty."""
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
    return Path(shutil.copytree(trained.path, tmp_path / "run"))


@pytest.fixture
def ask(gmmc: Gmmc, run: Path) -> Ask:
    """The object that a command answers with, about ten images."""

    def asked(*words: object) -> dict[str, Any]:
        result = gmmc(*words, "--run", run, "--n", 10, "--json", "--quiet")
        assert result.exit_code == 0, result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return asked


@pytest.mark.parametrize("words", [("eval", "accuracy"), ("attack", "fgsm"), ("attack", "pgd", "--steps", 3)])
def test_0_steps_are_the_plain_classifier(words: tuple[object, ...], ask: Ask, run: Path) -> None:
    plain = ask(*words)
    assert ask(*words, "--refine", 0) == plain
    assert len([*(run / "results").glob("*-n10*.json")]) == 1


def test_accuracy_may_be_that_of_refined_images(ask: Ask) -> None:
    plain, refined = ask("eval", "accuracy"), ask("eval", "accuracy", "--refine", 3)
    assert refined["protocol"].pop("refinement").startswith("3 steps down E(x) (sgld, ")
    assert refined["protocol"] | {"temperature": None} == plain["protocol"] | {"temperature": None}
    assert refined["values"]["nll"] != plain["values"]["nll"]


def test_attacks_know_of_the_refinement_and_do_not(ask: Ask) -> None:
    words = ("--refine", 2, "--refine-chains", 2, "--refine-noise", 0.05, "--eot", 2)
    found = ask("attack", "pgd", "--steps", 2, "--loss", "margin", "--eps", "16/255", *words)
    (row,) = found["values"]["eps"].values()
    assert [*row["ways"]] == ["eot", "bpda", "ignoring"]
    assert row["accuracy"] <= min(row["ways"].values())
    assert "mean over 2 draws" in found["protocol"]["gradient"]
    assert "noise_std 0.05" in found["protocol"]["refinement"] and "mean of 2 chains" in found["protocol"]["refinement"]


def test_the_audit_may_be_of_a_refined_classifier(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "SUITE", (Attack("pgd", "ce", steps=2), Attack("pgd", "margin", steps=2)))
    monkeypatch.setattr(audits, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=4)})
    monkeypatch.setattr(audits, "EPS", (8 / 255,))
    monkeypatch.setattr("gmmcli.evaluate.audit.MARGIN", Attack("pgd", "margin", steps=2))
    found = ask("attack", "audit", "--refine", 1)
    assert {audits.STRAIGHT_THROUGH, audits.IGNORING} <= {*found["values"]["attacks"]}
    assert found["values"]["sentence"].startswith("Refined by 1 step")


def test_a_gradient_has_as_many_draws_as_evaluate_says() -> None:
    assert commands.Attacked().eot == signature(commands.audit_command).parameters["eot"].default == DRAWS


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--refine-chains", 2), "are options of --refine"),
        (("--refine-noise", 0.1), "are options of --refine"),
        (("--refine", 2, "--refine-chains", 2), "without noise all 2 chains of an image are the same"),
    ],
)
def test_what_is_refused(words: tuple[object, ...], sentence: str, gmmc: Gmmc, run: Path) -> None:
    for command in (("eval", "accuracy"), ("attack", "pgd"), ("attack", "audit")):
        result = gmmc(*command, *words, "--run", run)
        assert result.exit_code == 2
        assert sentence in result.stderr
