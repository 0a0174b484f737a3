import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.core.optim import Adam

PER_EPOCH, N_STEPS = 10, 100


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1.0), (29, 1.0), (30, 0.3), (49, 0.3), (50, 0.09), (79, 0.09), (80, 0.027), (99, 0.027)],
)
def test_milestones_multiply_from_their_epoch_on(step: int, rate: float) -> None:
    adam = Adam(learning_rate=2.0, milestones=(5, 3, 8), decay=0.3)
    assert math.isclose(adam.rate(step, PER_EPOCH, N_STEPS), 2.0 * rate)


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0), (99, 1.0)])
def test_warm_up_rises_linearly_and_never_from_zero(step: int, share: float) -> None:
    assert math.isclose(Adam(learning_rate=0.4, warmup_steps=4).rate(step, PER_EPOCH, N_STEPS), 0.4 * share)


def test_warm_up_meets_milestones_and_cosine_halfway() -> None:
    assert math.isclose(Adam(learning_rate=1.0, warmup_steps=40, milestones=(1,), decay=0.5).rate(19, PER_EPOCH, N_STEPS), 0.25)
    cosine = Adam(learning_rate=1.0, warmup_steps=100, schedule="cosine", final_share=0.0)
    assert math.isclose(cosine.rate(49, PER_EPOCH, N_STEPS), 0.5 * (1 + math.cos(math.pi * 0.49)) / 2)


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (25, (2 + math.sqrt(2)) / 4), (50, 0.5), (100, 0.0)])
@pytest.mark.parametrize("final_share", [0.0, 0.01, 1.0])
def test_cosine_falls_from_the_rate_to_its_final_share(step: int, share: float, final_share: float) -> None:
    adam = Adam(learning_rate=3.0, schedule="cosine", final_share=final_share)
    expected = 3.0 * (final_share + (1 - final_share) * share)
    assert math.isclose(adam.rate(step, PER_EPOCH, N_STEPS), expected, abs_tol=1e-12)


@given(
    warmup=st.integers(0, 60),
    cosine=st.booleans(),
    milestones=st.lists(st.integers(0, 12), max_size=4),
    decay=st.floats(0.05, 1),
    final_share=st.floats(0, 1),
)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_rates_stay_positive_and_never_rise_after_the_warm_up(
    warmup: int, cosine: bool, milestones: list[int], decay: float, final_share: float
) -> None:
    schedule = "cosine" if cosine else "milestones"
    adam = Adam(
        learning_rate=0.5, warmup_steps=warmup, schedule=schedule, milestones=tuple(milestones), decay=decay, final_share=final_share
    )
    rates = [adam.rate(step, PER_EPOCH, N_STEPS) for step in range(N_STEPS)]
    assert all(0 < rate <= 0.5 for rate in rates)
    after = rates[max(0, warmup - 1) :]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(after))


def parameters() -> list[torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(2)
    return [torch.nn.Parameter(torch.randn(*shape, generator=rng)) for shape in ((3, 4), (5,))]


def step(optimizer: torch.optim.Adam, weights: list[torch.nn.Parameter], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=rng)
    optimizer.step()


def test_fused_adam_with_nothing_found_is_plain_adam() -> None:
    fused, plain = parameters(), parameters()
    optimizer, reference = Adam(learning_rate=0.1).build(fused), torch.optim.Adam(plain, lr=0.1, fused=False, foreach=False)
    for seed in range(5):
        optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
        step(optimizer, fused, seed)
        step(reference, plain, seed)
    for weight, expected, start in zip(fused, plain, parameters(), strict=True):
        torch.testing.assert_close(weight, expected)
        assert not torch.allclose(weight, start)


def test_fused_adam_skips_a_step_in_which_something_was_found() -> None:
    weights = parameters()
    optimizer = Adam(learning_rate=0.1).build(weights)
    step(optimizer, weights, 0)
    before = [weight.detach().clone() for weight in weights]
    moments = [{name: value.clone() for name, value in optimizer.state[weight].items()} for weight in weights]
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    for weight in weights:
        weight.grad = torch.full_like(weight, torch.nan)
    optimizer.step()
    for weight, kept, kept_moments in zip(weights, before, moments, strict=True):
        assert torch.equal(weight, kept)
        assert set(kept_moments) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(optimizer.state[weight][name], value) for name, value in kept_moments.items())
