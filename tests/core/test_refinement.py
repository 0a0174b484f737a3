"""Refined classification: chains before the class, and the gradient of all of it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gmmcli.core.classifier import Classifier, frozen
from gmmcli.core.heads import LinearHead, MaxMahalanobisHead
from gmmcli.core.refinement import Refined, Refinement
from gmmcli.core.samplers import SGLD, Descent, FixedLength, changed
from gmmcli.core.targets import Marginal

SAMPLERS = [FixedLength(step_size=0.4), SGLD(step_size=0.1), SGLD(step_size=0.1, clip=0.05), FixedLength(step_size=0.4, noise_std=0.1)]


def smooth(gaussian: bool = True) -> Classifier:
    """A network whose energy has second derivatives, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 4))
        head = MaxMahalanobisHead(3, 4, 2.0) if gaussian else LinearHead(4, 3)
        return Classifier(backbone, head).double().eval().requires_grad_(False)


def images(n: int = 3) -> Tensor:
    return torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5


@pytest.mark.parametrize("chains", [1, 3])
def test_of_no_steps_it_is_the_plain_model(chains: int) -> None:
    model, x = smooth(), images()
    refined = Refined(model, Refinement(0, SAMPLERS[3], chains))
    assert torch.equal(refined(x), model(x))
    assert torch.equal(refined.features(x), model.features(x))


@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=str)
def test_without_noise_images_go_where_the_sampler_takes_them(sampler: Descent) -> None:
    model, x = smooth(), images()
    generator = torch.Generator().manual_seed(0)
    expected, _ = changed(sampler, n_steps=4)(Marginal()(model, torch.zeros(3, dtype=torch.int64), generator), x, generator)  # type: ignore[arg-type]
    refined = Refined(model, Refinement(4, sampler))
    torch.testing.assert_close(refined.refined(x)[0], expected)
    torch.testing.assert_close(refined(x), model(expected))
    assert not torch.equal(refined(x), model(x))


@pytest.mark.parametrize("sampler", [SAMPLERS[0], SAMPLERS[1], SAMPLERS[3]], ids=str)
@pytest.mark.parametrize("gaussian", [True, False])
def test_the_gradient_is_that_of_finite_differences(sampler: Descent, gaussian: bool) -> None:
    refined = Refined(smooth(gaussian), Refinement(3, sampler, chains=2))
    x = images().requires_grad_()
    assert refined.refined(x).abs().amax() < 1  # nowhere clamped: there a derivative does not exist
    assert torch.autograd.gradcheck(refined, (x,), eps=1e-6, atol=1e-6)


def test_of_clamped_pixels_the_gradient_is_0() -> None:
    refined, x = Refined(smooth(), Refinement(1, FixedLength(step_size=50.0))), images().requires_grad_()
    arrived = refined.refined(x)[0]
    clamped = (arrived.abs() == 1).flatten(1)
    assert clamped.any()
    (gradient,) = torch.autograd.grad(arrived.flatten(1)[clamped].sum(), x)
    assert not gradient.any()


def test_straight_through_the_chain_is_the_identity_on_the_way_back() -> None:
    model, x = smooth(), images().requires_grad_()
    refinement = Refinement(3, SAMPLERS[3], chains=2)
    straight, through = Refined(model, refinement, straight_through=True), Refined(model, refinement)
    assert torch.equal(straight(x), through(x))
    arrived = through.refined(x).detach().requires_grad_()
    mean = model.head(torch.stack([model.features(chain) for chain in arrived]).mean(0))
    expected = torch.autograd.grad(mean[:, 0].sum(), arrived)[0].sum(0)
    torch.testing.assert_close(torch.autograd.grad(straight(x)[:, 0].sum(), x)[0], expected)
    assert not torch.allclose(torch.autograd.grad(through(x)[:, 0].sum(), x)[0], expected)


def test_a_class_is_a_function_of_the_image_alone_until_other_noise_is_drawn() -> None:
    model, x, refinement = smooth(), images(), Refinement(2, SAMPLERS[3])
    logits = Refined(model, refinement)(x)
    assert torch.equal(Refined(model, refinement)(x), logits)
    torch.testing.assert_close(Refined(model, refinement)(x[1:2]), logits[1:2])
    torch.testing.assert_close(Refined(model, refinement)(x.float().double()), logits, atol=1e-5, rtol=1e-5)
    for other in (replace(refinement, seed=2), replace(refinement, draw=("eot", 1))):
        assert not torch.allclose(Refined(model, other)(x), logits)


def test_chains_have_a_noise_of_their_own_and_logits_but_for_a_constant_are_their_mean() -> None:
    model, x = smooth(), images()
    refined = Refined(model, Refinement(2, SAMPLERS[3], chains=4))
    chains = refined.refined(x)
    assert chains.shape == (4, 3, 1, 3, 3)
    assert not torch.allclose(chains[0], chains[1])
    difference = refined(x) - torch.stack([model(chain) for chain in chains]).mean(0)
    torch.testing.assert_close(difference, difference[:, :1].expand(-1, 3))


@torch.no_grad()
def test_without_gradients_nothing_is_kept_and_the_model_stays_as_it_was() -> None:
    model = smooth().train().requires_grad_(True)
    model.gamma2 = 0.5
    refined = Refined(model, Refinement(2, SAMPLERS[0]))
    with frozen(refined):
        logits = refined(images())
        assert not model.training
    assert not logits.requires_grad and model.training
    assert refined.gamma2 == 0.5
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_it_says_what_it_does() -> None:
    text = str(Refinement(10, FixedLength(step_size=0.3, noise_std=0.01), chains=4, seed=2))
    assert text == "10 steps down E(x) (fixed-length, noise_std 0.01, step_size 0.3), mean of 4 chains, seed 2"
