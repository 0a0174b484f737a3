import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.core.optim import SGD, Adam
from gmmcli.core.protocols import Optim

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


def step(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=rng)
    optimizer.step()


PLAIN: dict[str, tuple[Optim, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]]] = {
    "adam": (Adam(learning_rate=0.1), lambda ps: torch.optim.Adam(ps, 0.1, fused=False)),
    "adam, other averages": (Adam(learning_rate=0.1, betas=(0.0, 0.9)), lambda ps: torch.optim.Adam(ps, 0.1, (0.0, 0.9), fused=False)),
    "adamw": (Adam(learning_rate=0.1, weight_decay=0.2), lambda ps: torch.optim.AdamW(ps, 0.1, weight_decay=0.2, fused=False)),
    "sgd": (SGD(), lambda ps: torch.optim.SGD(ps, 0.1, 0.9, fused=False)),
    "sgd without momentum": (SGD(momentum=0.0), lambda ps: torch.optim.SGD(ps, 0.1, fused=False)),
    "nesterov": (
        SGD(learning_rate=0.02, momentum=0.8, nesterov=True, weight_decay=0.3),
        lambda ps: torch.optim.SGD(ps, 0.02, 0.8, weight_decay=0.3, nesterov=True, fused=False),
    ),
}


@pytest.mark.parametrize(("optim", "plain"), PLAIN.values(), ids=PLAIN)
def test_fused_with_nothing_found_is_torchs_plain_optimiser(optim: Optim, plain: Any) -> None:
    weights, expected = parameters(), parameters()
    optimizer, reference = optim.build(weights), plain(expected)
    for seed in range(5):
        optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]  # read by torch's fused kernels, not declared
        step(optimizer, weights, seed)
        step(reference, expected, seed)
    for weight, other, begin in zip(weights, expected, parameters(), strict=True):
        torch.testing.assert_close(weight, other)
        assert not torch.allclose(weight, begin)


MOMENTS: dict[str, tuple[Optim, set[str]]] = {
    "adam": (Adam(learning_rate=0.1, weight_decay=0.1), {"step", "exp_avg", "exp_avg_sq"}),
    "sgd": (SGD(weight_decay=0.1, nesterov=True), {"momentum_buffer"}),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("optim", "names"), MOMENTS.values(), ids=MOMENTS)
def test_fused_skips_a_step_in_which_something_was_found(optim: Optim, names: set[str], first: bool) -> None:
    weights = parameters()
    optimizer = optim.build(weights)
    if not first:
        step(optimizer, weights, 0)
    before = [weight.detach().clone() for weight in weights]
    moments = [{name: value.clone() for name, value in optimizer.state[weight].items()} for weight in weights]
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]  # read by torch's fused kernels, not declared
    for weight in weights:
        weight.grad = torch.full_like(weight, torch.nan)
    optimizer.step()
    for weight, kept, kept_moments in zip(weights, before, moments, strict=True):
        assert torch.equal(weight, kept)
        assert set(optimizer.state[weight]) == names
        nothing = torch.zeros(())
        assert all(bool((value == kept_moments.get(name, nothing)).all()) for name, value in optimizer.state[weight].items())


def test_momentum_lies_in_memory_as_its_weights_do() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    assert SGD().build([weight]).state[weight]["momentum_buffer"].stride() == weight.stride()


def test_each_kind_has_its_usual_rate_and_the_same_schedule() -> None:
    assert (Adam().learning_rate, SGD().learning_rate) == (1e-4, 0.1)
    table = {"learning_rate": 0.5, "warmup_steps": 7, "milestones": (2, 4), "decay": 0.5}
    rates = [[kind(**table).rate(step, PER_EPOCH, N_STEPS) for step in range(N_STEPS)] for kind in (Adam, SGD)]
    assert rates[0] == rates[1]


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="nesterov looks ahead along the momentum"):
        SGD(momentum=0.0, nesterov=True)


def test_a_rate_beyond_all_numbers_is_infinite() -> None:
    assert Adam(learning_rate=1.0, milestones=(0, 0), decay=1e200).rate(0, 1, 1) == math.inf
