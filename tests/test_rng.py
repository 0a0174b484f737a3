import pytest
import torch
from scipy.stats import kstest

from gmmcli.rng import stream


def test_same_key_gives_the_same_numbers_whatever_happened_before() -> None:
    first = torch.rand(5, generator=stream("cpu", 1, "step", 17))
    torch.manual_seed(99)
    torch.rand(3, generator=stream("cpu", 1, "step", 16))
    assert torch.equal(first, torch.rand(5, generator=stream("cpu", 1, "step", 17)))


def test_keys_keep_their_meaning_across_versions() -> None:
    """A resume with a newer gmmcli must continue with the same numbers: never edit these."""
    assert stream("cpu", 1, "step", 17).initial_seed() == 8377792470029641370
    assert stream("cpu", 0, "buffer").initial_seed() == 7368641796999985573


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, "step", 17), (1, "step", 18)), ((1, "step", 17), (2, "step", 17)), ((12, 3), (1, 23)), ((1,), ("1",)), (("a", "b"), ("ab",))],
)
def test_different_keys_give_different_numbers(one: tuple[int | str, ...], other: tuple[int | str, ...]) -> None:
    assert not torch.equal(torch.rand(5, generator=stream("cpu", *one)), torch.rand(5, generator=stream("cpu", *other)))


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=stream("cpu", 5))
    assert torch.equal(before, torch.get_rng_state())


def test_streams_of_neighbouring_steps_are_uniform_and_uncorrelated() -> None:
    firsts = torch.stack([torch.rand(2, generator=stream("cpu", 1, "step", step)) for step in range(2000)])
    assert kstest(firsts[:, 0], "uniform").pvalue > 0.01
    assert torch.corrcoef(torch.stack([firsts[1:, 0], firsts[:-1, 0], firsts[1:, 1]])).triu(1).abs().max() < 3.5 / 2000**0.5
