"""A refined classifier measured: nothing of its results passes for the plain one's, and it is attacked by who knows and who does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import PGD, Toy, saved

from gmmcli.attacks import audit as audits
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.expectation import DRAWS, Expectation
from gmmcli.core.refinement import Refined, Refinement
from gmmcli.errors import RecipeError
from gmmcli.evaluate.audit import audit
from gmmcli.evaluate.classification import accuracy
from gmmcli.evaluate.robustness import attacked, robust_accuracy
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs

EPS = (4 / 255, 8 / 255)


def noiseless(toy: Toy, steps: int = 1, **more: str) -> Subject:
    """The toy, refined: its boundaries are where they were, for the chain makes the brightest block brighter."""
    return toy(**more).refined(steps)


@pytest.mark.usefixtures("undrawn")
def test_of_no_steps_it_is_the_plain_subject(subject: Subject) -> None:
    assert subject.refined(0, chains=5, noise_std=0.1) is subject
    assert subject.refinement is None
    assert "refinement" not in accuracy(subject).result["protocol"]


@pytest.mark.usefixtures("undrawn")
def test_accuracy_is_that_of_the_refined_images_and_its_result_says_so(subject: Subject) -> None:
    plain = accuracy(subject).result
    refined = subject.refined(3, chains=2, noise_std=0.2)
    result = accuracy(refined).result
    sampler = replace(subject.card.recipe.chains.sampler, noise_std=0.2)  # type: ignore[type-var]
    refinement = Refinement(3, sampler, 2)  # type: ignore[arg-type]
    assert result["protocol"]["refinement"] == str(refinement)
    assert result["protocol"]["gamma2"] == plain["protocol"]["gamma2"]
    logits = outputs(Refined(subject.model, refinement), subject.images).logits
    kept = subject.run.arrays("eval-accuracy-refine-3-chains-2-noise-0.2")["logits"]
    np.testing.assert_allclose(kept, logits, rtol=1e-5)
    assert np.abs(kept - subject.run.arrays("eval-accuracy")["logits"]).max() > 0.01
    assert subject.run.result("eval accuracy") == plain


def test_as_many_images_pass_at_a_time_as_the_plain_model_takes_of_their_chains(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask the refined one would keep the activations of all its steps."""
    asked: list[object] = []
    seen: list[int] = []
    monkeypatch.setattr("gmmcli.metrics.outputs.batch_size", lambda model, like: asked.append(model) or 60)
    refined = subject.refined(1, chains=3, noise_std=0.1)
    subject.model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    refined.outputs()
    assert asked == [subject.model]
    assert set(seen) == {60}


def test_the_seed_of_the_noise_is_part_of_the_name(subject: Subject) -> None:
    refined = replace(subject, seed=2).refined(3, noise_std=0.2)
    assert refined.name("eval accuracy") == "eval accuracy refine 3 chains 1 noise 0.2 seed 2"
    assert "seed 2" in str(refined.refinement)


def test_several_chains_without_noise_are_refused(subject: Subject) -> None:
    with pytest.raises(RecipeError, match="without noise all 4 chains"):
        subject.refined(3, chains=4, noise_std=0.0)


def test_steps_of_a_foreign_sampler_are_refused(subject: Subject) -> None:
    class Foreign:
        kind = "foreign"

    recipe = replace(subject.card.recipe, chains=replace(subject.card.recipe.chains))
    vars(recipe.chains).update(sampler=Foreign())
    with pytest.raises(RecipeError, match="chains of sampler foreign"):
        replace(subject, card=replace(subject.card, recipe=recipe)).refined(3)


def test_who_attacks_sees_the_noise_and_float64_reaches_the_plain_model(toy: Toy) -> None:
    refined = toy().refined(2, noise_std=0.1)
    model, pixels, _ = attacked(refined, float64=True, eot=3)
    assert isinstance(model, Expectation)
    assert (model.draws, model.random) == (3, True)
    assert model.refined.plain.head.weight.dtype == torch.float64 != refined.model.head.weight.dtype
    assert model(pixels).dtype == torch.float64
    assert isinstance(attacked(toy(name="plain"))[0], Expectation) is False


def test_where_the_chain_moves_no_boundary_every_way_finds_what_a_plain_attack_does(toy: Toy) -> None:
    plain = robust_accuracy(toy(name="plain"), PGD, EPS).result["values"]["eps"]
    subject = noiseless(toy)
    measured = robust_accuracy(subject, PGD, EPS)
    result = measured.result
    assert not measured.warnings
    for eps, row in result["values"]["eps"].items():
        assert row["accuracy"] == plain[eps]["accuracy"] == row["new_noise"]
        assert row["ways"] == dict.fromkeys(("eot", "bpda", "ignoring"), row["accuracy"])
    assert "mean over 1 draws of its noise (EOT)" in result["protocol"]["gradient"]
    assert "1 step down E(x)" in result["protocol"]["refinement"]
    (name,) = subject.run.results()
    assert "refine-1-chains-1-noise-0" in name


def test_an_image_counts_by_the_worst_way_and_a_gradient_that_the_chain_hides_is_told_of(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain's gradient points nowhere here: who knows of it finds nothing, who does not everything."""
    monkeypatch.setattr(Expectation, "look", lambda self, x, loss, differentiated, number: [*_look(self, x, loss), torch.zeros_like(x)])
    measured = robust_accuracy(noiseless(toy), replace(PGD, seed=5), [8 / 255])
    (row,) = measured.result["values"]["eps"].values()
    assert row["ways"]["ignoring"] == 0.25 < row["ways"]["eot"]
    assert row["accuracy"] == 0.25
    (warning,) = measured.warnings
    assert "the chain hides its gradient" in warning


def _look(model: Expectation, x: torch.Tensor, loss: object) -> list[torch.Tensor]:
    with torch.no_grad():
        logits = model(x)
    return [logits, loss(logits)]  # type: ignore[operator]


def test_without_gradients_there_is_nothing_to_go_straight_through(toy: Toy) -> None:
    rows = robust_accuracy(noiseless(toy), Attack("square", "margin", steps=50), EPS).result["values"]["eps"].values()
    assert [[*row["ways"]] for row in rows] == [["eot", "ignoring"]] * 2


def test_under_new_noise_what_was_found_may_be_right_again(toy: Toy) -> None:
    """Noise that decides by itself: an image that one draw misclassifies is right under some of the others."""
    subject = toy().refined(1, noise_std=0.1)
    values = robust_accuracy(subject, PGD, EPS, eot=4).result["values"]
    for row in values["eps"].values():
        assert row["accuracy"] <= row["new_noise"] < 1
    assert [*subject.run.results()] == ["attack-pgd-loss-margin-steps-4-eps-4-255-8-255-eot-4-refine-1-chains-1-noise-0.1"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit of two attacks, a third at 8/255, and two radii, whose figures stay empty."""
    monkeypatch.setattr(audits, "SUITE", (Attack("pgd", "ce", steps=2), Attack("pgd", "margin", steps=2)))
    monkeypatch.setattr(audits, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=4)})
    monkeypatch.setattr(audits, "EPS", EPS)
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])


@pytest.mark.usefixtures("small")
def test_the_audit_tries_those_who_know_those_who_go_straight_through_and_those_who_ignore(toy: Toy) -> None:
    subject = noiseless(toy)
    result = audit(subject).result
    attacks = result["values"]["attacks"]
    assert [*attacks] == ["pgd-ce", "pgd-margin", "pgd-margin x2 steps", "pgd-margin straight through", "ignoring the refinement"]
    for name in ("pgd-margin", "pgd-margin straight through", "ignoring the refinement"):
        assert [row["accuracy"] for row in attacks[name].values()] == [0.75, 0.25]
    assert result["values"]["sentence"].startswith("Refined by 1 step down E(x)")
    assert "worst case of 5 attacks" in result["values"]["sentence"]
    assert result["protocol"]["refinement"] == str(subject.refinement)
    assert {"ignoring_the_refinement", "pgd-margin_straight_through"} <= {*saved(subject, "attack-audit")}
    assert [*subject.run.results()] == ["attack-audit-refine-1-chains-1-noise-0"]
    assert DRAWS == 10


@pytest.mark.usefixtures("small")
def test_an_audit_of_another_refinement_is_another(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted one left is not taken for that of the other."""
    folders = set()
    monkeypatch.setattr("gmmcli.evaluate.audit._saved", lambda path, task: folders.add(path.parent) or torch.full((8,), np.inf).double())
    monkeypatch.setattr("gmmcli.evaluate.audit.rmtree", lambda folder: None)
    subject = toy()
    for refined in (subject, subject.refined(1), subject.refined(2), subject.refined(1, noise_std=0.1)):
        audit(refined)
    audit(subject.refined(1, noise_std=0.1), eot=3)
    assert len(folders) == 5
