from typing import Any

import pytest
import torch

from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import joint_energy
from gmmcli.core.heads import LinearHead
from gmmcli.core.protocols import Target
from gmmcli.core.targets import Conditional, InjectedLatent, Marginal, StagedLatent

STD = 0.3
LABELS = torch.tensor([2, 0, 1, 2])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1)).mul(2).sub(1)


def delta(seed: int) -> torch.Tensor:
    """The first normal numbers of a generator seeded like the target's."""
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))


def draws(target: Target, model: Classifier, images: torch.Tensor) -> list[bool]:
    """Whether the generator moved: on calling the target, then on three calls of its energy."""
    rng, moved = torch.Generator().manual_seed(3), []

    def watch(action: Any) -> Any:
        before = rng.get_state()
        result = action()
        moved.append(not torch.equal(before, rng.get_state()))
        return result

    energy = watch(lambda: target(model, LABELS, rng))
    for _ in range(3):
        watch(lambda: energy(images))
    return moved


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (StagedLatent(std=STD), [True, False, False, False]),
        (InjectedLatent(std=STD), [False, True, True, True]),
        (Conditional(), [False, False, False, False]),
        (Marginal(), [False, False, False, False]),
    ],
)
def test_target_draws_its_latents_when_the_paper_does(
    target: Target, expected: list[bool], linear_model: Classifier, images: torch.Tensor
) -> None:
    assert draws(target, linear_model, images) == expected


def test_staged_energy_is_the_distance_to_one_latent(linear_model: Classifier, weight: torch.Tensor, images: torch.Tensor) -> None:
    energy = StagedLatent(std=STD)(linear_model, LABELS, torch.Generator().manual_seed(7))
    latents = linear_model.means[LABELS] + STD * delta(7)
    expected = (images.flatten(1) @ weight.T - latents).square().sum(1) / 2
    torch.testing.assert_close(energy(images), expected)
    torch.testing.assert_close(energy(images), expected)


def test_injected_gradient_is_equation_10(linear_model: Classifier, weight: torch.Tensor, images: torch.Tensor) -> None:
    """``d/dx 1/2 ||phi - mu||^2 - std <delta, dphi/dx>``, by hand for phi(x) = W x."""
    energy = InjectedLatent(std=STD)(linear_model, LABELS, torch.Generator().manual_seed(7))
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(images).sum(), images)
    phi = images.detach().flatten(1) @ weight.T
    by_hand = (phi - linear_model.means[LABELS]) @ weight - STD * delta(7) @ weight
    torch.testing.assert_close(gradient.flatten(1), by_hand)


def test_injected_gradient_is_right_on_average_and_scatters_by_std(
    linear_model: Classifier, weight: torch.Tensor, images: torch.Tensor, generator: torch.Generator
) -> None:
    image, n = images[0], 4000
    many = image.expand(n, 1, 2, 2).clone().requires_grad_()
    energy = InjectedLatent(std=STD)(linear_model, torch.full((n,), 2), generator)
    (gradients,) = torch.autograd.grad(energy(many).sum(), many)
    noise_free = (weight @ image.flatten() - linear_model.means[2]) @ weight
    scatter = STD * weight.norm(dim=0)
    assert ((gradients.flatten(1).mean(0) - noise_free).abs() < 4 * scatter / n**0.5).all()
    torch.testing.assert_close(gradients.flatten(1).std(0), scatter, rtol=4 / (2 * n) ** 0.5, atol=0)


@pytest.mark.parametrize("target", [StagedLatent(std=0.0), InjectedLatent(std=0.0), Conditional()])
def test_without_latent_noise_all_targets_are_the_joint_energy(
    target: Target, linear_model: Classifier, images: torch.Tensor, generator: torch.Generator
) -> None:
    torch.testing.assert_close(target(linear_model, LABELS, generator)(images), joint_energy(linear_model(images), LABELS))


def test_conditional_serves_a_head_without_means(linear_model: Classifier, images: torch.Tensor, generator: torch.Generator) -> None:
    model = Classifier(linear_model.backbone, LinearHead(3, 3))
    assert torch.equal(Conditional()(model, LABELS, generator)(images), -model(images)[torch.arange(4), LABELS])
    with pytest.raises(TypeError, match="LinearHead has no class means"):
        StagedLatent()(model, LABELS, generator)


def test_marginal_energy_has_the_label_summed_out(linear_model: Classifier, images: torch.Tensor, generator: torch.Generator) -> None:
    energy = Marginal()(linear_model, LABELS, generator)(images)
    torch.testing.assert_close(energy.double(), -linear_model(images).double().exp().sum(1).log())
    assert torch.equal(energy, Marginal()(linear_model, LABELS.flip(0), generator)(images))
