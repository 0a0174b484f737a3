import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.core.classifier import frozen
from gmmcli.core.model import Model
from gmmcli.core.protocols import Sampler
from gmmcli.core.samplers import SGLD, FixedLength, descent_share
from gmmcli.core.targets import Conditional
from gmmcli.core.wide_resnet import Norm, WideResNet
from gmmcli.types import EnergyFn


def quadratic(stiffness: torch.Tensor | float, centre: float = 0.0) -> EnergyFn:
    """``stiffness / 2 ||x - centre||^2``, one stiffness per image."""
    return lambda x: stiffness * (x - centre).square().sum((1, 2, 3)) / 2


@pytest.fixture
def starts(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(4, 1, 3, 3, generator=generator).mul(2).sub(1)


@given(st.integers(1, 12), st.floats(0.01, 0.6), st.floats(-0.5, 0.5))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_chain_follows_the_closed_form_on_a_quadratic_energy(n_steps: int, step_size: float, centre: float) -> None:
    """``x_t - c = (1 - a k)^t (x_0 - c)`` and ``E_t = (1 - a k)^(2 t) E_0``, for each image its own k."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(4, 1, 3, 3, generator=generator).mul(2).sub(1)
    stiffness = torch.tensor([0.5, 1.0, 1.5, 2.0])
    energy = quadratic(stiffness, centre)
    images, trace = SGLD(n_steps=n_steps, step_size=step_size)(energy, starts, generator)
    shrink = 1 - step_size * stiffness
    torch.testing.assert_close(images, centre + (shrink**n_steps)[:, None, None, None] * (starts - centre), rtol=1e-4, atol=1e-5)
    steps = torch.arange(n_steps)[:, None]
    torch.testing.assert_close(trace, shrink ** (2 * steps) * energy(starts), rtol=1e-4, atol=1e-5)


def test_trace_holds_the_energies_before_each_update(starts: torch.Tensor, generator: torch.Generator) -> None:
    met = []

    def energy(images: torch.Tensor) -> torch.Tensor:
        met.append(quadratic(1.0)(images))
        return met[-1]

    _, trace = SGLD(n_steps=5, step_size=0.1, noise_std=0.05)(energy, starts, generator)
    assert trace.shape == (5, 4) and not trace.requires_grad
    assert torch.equal(trace, torch.stack(met).detach())
    assert torch.equal(trace[0], quadratic(1.0)(starts))


@pytest.mark.parametrize("kind", [SGLD, FixedLength])
def test_starts_stay_untouched_and_arrivals_carry_no_graph(
    kind: Callable[..., Sampler], starts: torch.Tensor, generator: torch.Generator
) -> None:
    kept = starts.clone()
    images, _ = kind(n_steps=3, step_size=0.1, noise_std=0.1)(quadratic(1.0), starts, generator)
    assert torch.equal(starts, kept) and not starts.requires_grad
    assert not images.requires_grad and not torch.equal(images, starts)


@pytest.mark.parametrize("kind", [SGLD, FixedLength])
def test_images_are_clamped_to_the_model_range_after_each_step(
    kind: Callable[..., Sampler], starts: torch.Tensor, generator: torch.Generator
) -> None:
    seen = []

    def downhill(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach())
        return -images.sum((1, 2, 3))

    images, _ = kind(n_steps=2, step_size=10.0)(downhill, starts, generator)
    assert torch.equal(images, torch.ones_like(images))
    assert torch.equal(seen[1], torch.ones_like(images))


@pytest.mark.parametrize("sampler", [SGLD(n_steps=4, step_size=0.05), FixedLength(n_steps=4)])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_chain_does_not_depend_on_its_company(norm: Norm, sampler: Sampler, generator: torch.Generator) -> None:
    model = Model(WideResNet(depth=10, width=1, norm=norm, init="kaiming")).build(3, 1, seed=0)
    starts = torch.rand(4, 1, 8, 8, generator=generator).mul(2).sub(1)
    labels = torch.tensor([0, 1, 2, 1])
    with frozen(model):
        together, trace = sampler(Conditional()(model, labels, generator), starts, generator)
        for i in range(4):
            alone, own = sampler(Conditional()(model, labels[i : i + 1], generator), starts[i : i + 1], generator)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(trace[:, i : i + 1], own, rtol=1e-4, atol=1e-4)
    assert (together - starts).abs().mean() > 0.01


def test_noise_reaches_the_stationary_variance_of_its_ar1_process(generator: torch.Generator) -> None:
    """``x <- (1 - a) x + s n`` has variance ``s^2 / (1 - (1 - a)^2)``, and neighbours in time correlate by ``1 - a``."""
    step_size, noise_std = 0.4, 0.05
    x, _ = SGLD(n_steps=30, step_size=step_size, noise_std=noise_std)(quadratic(1.0), torch.zeros(4, 1, 50, 50), generator)
    expected = noise_std**2 / (1 - (1 - step_size) ** 2)
    assert math.isclose(x.var(), expected, rel_tol=4 * math.sqrt(2 / x.numel()))
    later, _ = SGLD(n_steps=1, step_size=step_size, noise_std=noise_std)(quadratic(1.0), x, generator)
    assert math.isclose(torch.corrcoef(torch.stack([x.flatten(), later.flatten()]))[0, 1], 1 - step_size, abs_tol=0.03)


@pytest.mark.parametrize("kind", [SGLD, FixedLength])
def test_noise_comes_from_the_generator_alone(kind: Callable[..., Sampler], starts: torch.Tensor) -> None:
    noisy = kind(n_steps=3, step_size=0.1, noise_std=0.1)
    one, other, third = (noisy(quadratic(1.0), starts, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)


@pytest.mark.parametrize("kind", [SGLD, FixedLength])
def test_without_noise_the_generator_stands_still(kind: Callable[..., Sampler], starts: torch.Tensor, generator: torch.Generator) -> None:
    before = generator.get_state()
    kind(n_steps=3, step_size=0.1)(quadratic(1.0), starts, generator)
    assert torch.equal(before, generator.get_state())


def test_descent_share_counts_falling_energies() -> None:
    trace = torch.tensor([[3.0, 1.0], [2.0, 2.0], [2.0, 1.0]])  # falls, stays; rises, falls
    assert descent_share(trace) == 0.5
    assert descent_share(trace[:1]).isnan()


def linear(slopes: torch.Tensor) -> EnergyFn:
    """``<slopes, x>``: the gradient is ``slopes`` everywhere."""
    return lambda x: (slopes * x).sum((1, 2, 3))


@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3, 100.0])
def test_clip_clamps_the_gradient_component_by_component(clip: float, generator: torch.Generator) -> None:
    slopes = torch.tensor([-2.0, -0.3, -0.05, -0.01, 0.0, 0.01, 0.05, 0.3, 2.0]).view(1, 1, 3, 3)
    images, _ = SGLD(n_steps=2, step_size=0.1, clip=clip)(linear(slopes), torch.zeros(1, 1, 3, 3), generator)
    bound = clip or math.inf
    expected = [-0.2 * min(max(slope, -bound), bound) for slope in slopes.flatten().tolist()]
    assert images.flatten().tolist() == pytest.approx(expected, abs=1e-7)


SCALES = [1e-36, 1e-30, 1e-20, 1e-10, 1e-3, 1.0, 1e5, 1e15, 1e30]
"""Squares of the outer ones are no float32 numbers."""


def test_every_step_has_its_length_towards_the_minimum_whatever_the_energys_scale(generator: torch.Generator) -> None:
    """On a quadratic energy a chain comes straight towards the centre: ``x_t - c = (r_0 - t s) (x_0 - c) / r_0``."""
    n, step_size, centre = len(SCALES), 0.03, 0.1
    starts = centre + torch.rand(n, 1, 3, 3, generator=generator) - 0.5
    distances = (starts - centre).flatten(1).norm(dim=1)
    assert distances.min() > 11 * step_size, "this test needs chains that do not arrive"
    seen: list[torch.Tensor] = []

    def energy(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach())
        return quadratic(torch.tensor(SCALES), centre)(images)

    images, _ = FixedLength(n_steps=10, step_size=step_size)(energy, starts, generator)
    for t, x in enumerate([*seen, images]):
        left = ((distances - t * step_size) / distances)[:, None, None, None]
        torch.testing.assert_close(x, centre + left * (starts - centre), rtol=0, atol=1e-6)
    steps = torch.stack([*seen[1:], images]) - torch.stack(seen)
    torch.testing.assert_close(steps.flatten(2).norm(dim=2), torch.full((10, n), step_size), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_a_step_goes_down_the_gradients_direction_over_all_channels(scale: float, generator: torch.Generator) -> None:
    slopes = torch.randn(5, 3, 4, 4, generator=generator)
    images, _ = FixedLength(n_steps=1, step_size=0.25)(linear(scale * slopes), torch.zeros(5, 3, 4, 4), generator)
    expected = -0.25 * slopes.double() / slopes.double().flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(images.double(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("noise_std", [0.0, 0.02])
def test_an_image_without_a_gradient_stays_where_it_is_and_finite(
    noise_std: float, starts: torch.Tensor, generator: torch.Generator
) -> None:
    slopes = torch.tensor([0.0, 1.0, 0.0, 1e-40])[:, None, None, None].expand_as(starts)
    images, trace = FixedLength(n_steps=3, step_size=0.01, noise_std=noise_std)(linear(slopes), 0.5 * starts, generator)
    assert images.isfinite().all() and trace.isfinite().all()
    moved = (images - 0.5 * starts).flatten(1)
    if noise_std:  # three draws, and nothing beside them
        assert moved[[0, 2]].std() == pytest.approx(3**0.5 * noise_std, rel=0.5)
    else:
        assert moved[[0, 2]].eq(0).all()
        assert moved[[1, 3]].norm(dim=1).tolist() == pytest.approx([0.03, 0.03], rel=1e-4)


def coarse(energy: EnergyFn) -> EnergyFn:
    """An energy as bfloat16 has it: eight bits, so that around 1000 it comes in steps of 4."""
    return lambda x: (1000 + energy(x)).bfloat16().float()


def test_steps_keep_their_length_where_energies_are_too_coarse_to_show_descent(starts: torch.Tensor, generator: torch.Generator) -> None:
    """Where a step's length followed the share of descending steps, it ended at 0 here: no energy is seen to fall."""
    sampler, images, shares, lengths, adapted = FixedLength(n_steps=2, step_size=0.01), 0.5 * starts, [], [], 1.0
    for _ in range(3000):
        before = images
        images, trace = sampler(coarse(quadratic(1.0)), images, generator)
        shares.append(float(descent_share(trace)))
        lengths.append((images - before).flatten(1).norm(dim=1))
        adapted *= 1.02 if shares[-1] > 0.8 else 0.96  # as it was
    assert max(shares) < 0.5 and adapted < 1e-38
    walked = torch.stack(lengths)[:5]
    torch.testing.assert_close(walked, torch.full((5, 4), 0.02), rtol=1e-3, atol=0)  # two steps of a straight way
    last, _ = FixedLength(n_steps=1, step_size=0.01)(coarse(quadratic(1.0)), images, generator)
    torch.testing.assert_close((last - images).flatten(1).norm(dim=1), torch.full((4,), 0.01), rtol=1e-3, atol=0)
    assert images.flatten(1).norm(dim=1).max() <= 0.0101  # around the minimum, no further than a step


@pytest.mark.parametrize("sampler", [FixedLength, SGLD])
def test_a_gradient_that_bfloat16_rounds_to_nothing_moves_nothing(
    sampler: Callable[..., Sampler], starts: torch.Tensor, generator: torch.Generator
) -> None:
    images, trace = sampler(n_steps=3, step_size=0.5)(lambda x: (0 * x).bfloat16().float().sum((1, 2, 3)), starts, generator)
    assert torch.equal(images, starts) and trace.eq(0).all()
