import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.core.backbones import Norm, WideResNet
from gmmcli.core.classifier import Model, frozen
from gmmcli.core.samplers import SGLD, descent_share
from gmmcli.core.targets import Conditional
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


def test_given_step_size_replaces_the_recipes(starts: torch.Tensor, generator: torch.Generator) -> None:
    images, _ = SGLD(n_steps=1, step_size=0.5)(quadratic(1.0), starts, generator, torch.tensor(0.25))
    torch.testing.assert_close(images, 0.75 * starts)


def test_starts_stay_untouched_and_arrivals_carry_no_graph(starts: torch.Tensor, generator: torch.Generator) -> None:
    kept = starts.clone()
    images, _ = SGLD(n_steps=3, step_size=0.1, noise_std=0.1)(quadratic(1.0), starts, generator)
    assert torch.equal(starts, kept) and not starts.requires_grad
    assert not images.requires_grad and not torch.equal(images, starts)


def test_images_are_clamped_to_the_model_range_after_each_step(starts: torch.Tensor, generator: torch.Generator) -> None:
    seen = []

    def downhill(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach())
        return -images.sum((1, 2, 3))

    images, _ = SGLD(n_steps=2, step_size=10.0)(downhill, starts, generator)
    assert torch.equal(images, torch.ones_like(images))
    assert torch.equal(seen[1], torch.ones_like(images))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_chain_does_not_depend_on_its_company(norm: Norm, generator: torch.Generator) -> None:
    model = Model(WideResNet(depth=10, width=1, norm=norm, init="kaiming")).build(3, 1, seed=0)
    starts = torch.rand(4, 1, 8, 8, generator=generator).mul(2).sub(1)
    labels, sampler = torch.tensor([0, 1, 2, 1]), SGLD(n_steps=4, step_size=0.05)
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


def test_noise_comes_from_the_generator_alone(starts: torch.Tensor) -> None:
    noisy = SGLD(n_steps=3, step_size=0.1, noise_std=0.1)
    one, other, third = (noisy(quadratic(1.0), starts, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)


def test_without_noise_the_generator_stands_still(starts: torch.Tensor, generator: torch.Generator) -> None:
    before = generator.get_state()
    SGLD(n_steps=3, step_size=0.1)(quadratic(1.0), starts, generator)
    assert torch.equal(before, generator.get_state())


def test_descent_share_counts_falling_energies() -> None:
    trace = torch.tensor([[3.0, 1.0], [2.0, 2.0], [2.0, 1.0]])  # falls, stays; rises, falls
    assert descent_share(trace) == 0.5
    assert descent_share(trace[:1]).isnan()


@pytest.mark.parametrize(("falling", "factor"), [(10, 1.02), (9, 1.02), (8, 0.96), (7, 0.96), (0, 0.96)])
def test_step_size_adapts_towards_the_share_of_descending_steps(falling: int, factor: float) -> None:
    trace = torch.tensor([[1.0] * 10, [0.5] * falling + [1.5] * (10 - falling)])
    adapted = SGLD(n_steps=2, adapt=0.8).adapted(torch.tensor(0.5), trace)
    torch.testing.assert_close(adapted, torch.tensor(0.5 * factor))


@pytest.mark.parametrize("adapt", [1e-9, 0.25, 0.5])
def test_a_share_that_random_steps_meet_is_refused(adapt: float) -> None:
    with pytest.raises(ValueError, match=f"^adapt = {adapt} is met by random steps of any length; set it above 0.5, or to 0"):
        SGLD(adapt=adapt)


@pytest.mark.parametrize("adapt", [0.0, 0.51, 0.99])
def test_a_share_that_only_descent_meets_is_taken_and_so_is_none(adapt: float) -> None:
    assert SGLD(adapt=adapt).adapt == adapt


@pytest.mark.parametrize(("sampler", "rows"), [(SGLD(n_steps=2, adapt=0.0), 2), (SGLD(n_steps=1, adapt=0.8), 1)])
def test_step_size_stays_when_adaption_is_off_or_nothing_could_descend(sampler: SGLD, rows: int) -> None:
    assert sampler.adapted(torch.tensor(0.5), torch.ones(rows, 3)) == 0.5
