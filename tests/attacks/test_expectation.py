"""Gradients through a refinement, over its noise."""

from collections.abc import Callable

import pytest
import torch
from linear import tangled
from torch import Tensor

from gmmcli.attacks.attack import Attack, Outcome
from gmmcli.attacks.expectation import Expectation
from gmmcli.attacks.losses import margin
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.attacks.within_ball import run
from gmmcli.core.refinement import Refined, Refinement
from gmmcli.core.samplers import FixedLength
from gmmcli.types import Logits

QUIET, NOISY = FixedLength(step_size=0.3), FixedLength(step_size=0.3, noise_std=0.2)
EPS = {"linf": 0.02, "l2": 0.15}
ATTACKS = [Attack("pgd", "margin", steps=5), Attack("pgd", "ce", "l2", steps=5), Attack("apgd", "dlr", steps=5)]


def refined(sampler: FixedLength, steps: int = 2, chains: int = 1) -> tuple[Refined, Tensor, Tensor]:
    """A refined network, images, and what it takes them for."""
    model, pixels, _ = tangled(5)
    defence = Refined(model.model, Refinement(steps, sampler, chains)).eval()
    return defence, pixels, PixelModel(defence)(pixels).argmax(1)


def loss_of(labels: Tensor) -> Callable[[Logits], Tensor]:
    return lambda logits: margin(logits, labels, labels)


def same(one: Outcome, other: Outcome) -> bool:
    return torch.equal(one.unbroken, other.unbroken) and torch.equal(one.adversarial, other.adversarial) and one[2:] == other[2:]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}-{attack.norm}")
def test_without_noise_one_draw_is_the_plain_attack_and_so_are_many(attack: Attack) -> None:
    defence, pixels, labels = refined(QUIET)
    expected = run(attack, PixelModel(defence), pixels, labels, EPS[attack.norm])
    assert 0 < int(expected.unbroken.sum()) < len(labels)
    assert same(run(attack, Expectation(defence, draws=1), pixels, labels, EPS[attack.norm]), expected)
    assert same(run(attack, Expectation(defence, draws=5), pixels, labels, EPS[attack.norm]), expected)


@pytest.mark.parametrize("straight_through", [True, False])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}-{attack.norm}")
def test_of_no_steps_it_is_the_attack_on_the_plain_model(attack: Attack, straight_through: bool) -> None:
    defence, pixels, labels = refined(NOISY, steps=0)
    expected = run(attack, PixelModel(defence.plain), pixels, labels, EPS[attack.norm])
    assert same(run(attack, Expectation(defence, 3, straight_through=straight_through), pixels, labels, EPS[attack.norm]), expected)


@pytest.mark.parametrize("straight_through", [True, False])
def test_loss_and_gradient_are_means_over_draws_and_logits_those_of_the_defence(straight_through: bool) -> None:
    defence, pixels, labels = refined(NOISY, chains=2)
    attacker = Expectation(defence, 3, straight_through=straight_through)
    logits, value, gradient = attacker.look(pixels, loss_of(labels), True, 7)
    assert torch.equal(logits, PixelModel(defence)(pixels))
    x = pixels.clone().requires_grad_()
    losses = torch.stack([loss_of(labels)(attacker.drawn("eot", 7, k)(x)) for k in range(3)]).mean(0)
    torch.testing.assert_close(value, losses.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(losses.sum(), x)[0], rtol=1e-4, atol=1e-5)


def test_noise_is_drawn_anew_at_every_look_and_is_not_that_of_the_defence() -> None:
    defence, pixels, labels = refined(NOISY)
    attacker = Expectation(defence, 1)
    gradients = [attacker.look(pixels, loss_of(labels), True, number)[2] for number in (1, 2, 1)]
    assert torch.equal(gradients[0], gradients[2])
    assert not torch.allclose(gradients[0], gradients[1])
    x = pixels.clone().requires_grad_()
    own = torch.autograd.grad(loss_of(labels)(PixelModel(defence)(x)).sum(), x)[0]
    assert not torch.allclose(gradients[0], own)
    assert attacker.random and not Expectation(refined(QUIET)[0], 1).random


def test_a_look_without_gradient_is_at_the_defence_itself() -> None:
    defence, pixels, labels = refined(NOISY)
    logits, value = Expectation(defence, 3).look(pixels, loss_of(labels), False, 1)
    assert torch.equal(logits, PixelModel(defence)(pixels))
    assert torch.equal(value, loss_of(labels)(logits))


def test_what_becomes_of_an_image_does_not_depend_on_the_others() -> None:
    defence, pixels, labels = refined(NOISY)
    attack = Attack("pgd", "margin", steps=4)
    together = run(attack, Expectation(defence, 2), pixels, labels, 0.1)
    alone = run(attack, Expectation(defence, 2), pixels[:5], labels[:5], 0.1)
    assert torch.equal(together.unbroken[:5], alone.unbroken)
    torch.testing.assert_close(together.adversarial[:5], alone.adversarial)


def test_an_image_that_has_not_moved_is_looked_at_again_under_new_noise() -> None:
    """At eps so small that no step moves anything: without noise one look suffices."""
    counts = []
    for sampler in (QUIET, NOISY):
        defence, pixels, labels = refined(sampler)
        counts.append(run(Attack("pgd", "margin", steps=4), Expectation(defence, 1), pixels, labels, 1e-12).forwards)
    assert counts[0] < counts[1]
