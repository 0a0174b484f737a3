import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor

from gmmcli.attacks.losses import LOSSES, cross_entropy, dlr, margin, median_gap, others, ranked_targets, targeted_dlr


def answers(n: int, n_classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits as a Gaussian head has them, all negative, right and wrong; labels, and targets that differ from them."""
    rng = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(n, n_classes, generator=rng, dtype=torch.float64) - 40
    labels = torch.randint(n_classes, (n,), generator=rng)
    return logits, labels, (labels + torch.randint(1, n_classes, (n,), generator=rng)) % n_classes


def by_hand(name: str, z: list[float], y: int, t: int) -> float:
    first, _, third, *rest = *sorted(z, reverse=True), float("nan")
    wrong = max(value for k, value in enumerate(z) if k != y)
    return {
        "ce": float(logsumexp(z)) - z[y],
        "ce-scaled": float(logsumexp(z)) - z[y],
        "margin": wrong - z[y],
        "dlr": (wrong - z[y]) / (first - third),
        "dlr-targeted": (z[t] - z[y]) / (first - (third + rest[0]) / 2),
        "mmc": -z[y],
        "mmc-targeted": z[t],
    }[name]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_its_formula(name: str) -> None:
    logits, labels, targets = answers(50, 5)
    expected = [by_hand(name, z, y, t) for z, y, t in zip(logits.tolist(), labels.tolist(), targets.tolist(), strict=True)]
    assert LOSSES[name].value(logits, labels, targets).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_needs_as_many_classes_as_it_says_and_no_more(name: str) -> None:
    loss = LOSSES[name]
    assert loss.value(*answers(20, loss.n_classes)).isfinite().all()
    if loss.n_classes > 2:
        with pytest.raises(IndexError):
            loss.value(*answers(20, loss.n_classes - 1))


@pytest.mark.parametrize("name", LOSSES)
def test_only_targeted_losses_look_at_targets(name: str) -> None:
    logits, labels, targets = answers(50, 5)
    elsewhere = torch.where((targets + 1) % 5 == labels, targets + 2, targets + 1) % 5
    changed = LOSSES[name].value(logits, labels, targets) != LOSSES[name].value(logits, labels, elsewhere)
    assert bool(changed.all()) == bool(changed.any()) == LOSSES[name].targeted


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_climbs_from_the_label_to_the_next_class(name: str) -> None:
    logits, labels, _ = answers(50, 5)
    logits.scatter_(1, labels[:, None], logits.amax(1, keepdim=True) + 1)
    nearest = ranked_targets(logits, labels, 0)
    step = torch.full((50, 1), 0.1, dtype=torch.float64)
    nearer = logits.scatter_add(1, labels[:, None], -step).scatter_add(1, nearest[:, None], step)
    assert (LOSSES[name].value(nearer, labels, nearest) > LOSSES[name].value(logits, labels, nearest)).all()


@given(st.integers(0, 2**31), st.integers(2, 8))
@settings(derandomize=True, max_examples=10)
def test_the_margin_is_positive_exactly_where_the_prediction_is_wrong(seed: int, n_classes: int) -> None:
    logits, labels, targets = answers(30, n_classes, seed)
    assert torch.equal(margin(logits, labels, targets) > 0, logits.argmax(1) != labels)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
@settings(derandomize=True, max_examples=10)
def test_the_ratios_know_neither_the_scale_of_the_logits_nor_their_origin(seed: int, scale: float, shift: float) -> None:
    logits, labels, targets = answers(30, 5, seed)
    for loss in (dlr, targeted_dlr):
        torch.testing.assert_close(loss(scale * logits + shift, labels, targets), loss(logits, labels, targets), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("gap", "vanished"), [(95.0, False), (110.0, True)])
def test_in_float32_the_gradient_of_cross_entropy_vanishes_from_a_gap_of_about_104_and_no_other_does(gap: float, vanished: bool) -> None:
    labels, targets = torch.tensor([0]), torch.tensor([1])
    for name, loss in LOSSES.items():
        logits = torch.tensor([[0.0, -gap, -2 * gap, -3 * gap]], requires_grad=True)
        (gradient,) = torch.autograd.grad(loss.value(logits, labels, targets).sum(), logits)
        assert bool((gradient == 0).all()) == (vanished and loss.value is cross_entropy), name


def test_others_takes_the_true_class_out_and_leaves_the_rest() -> None:
    logits, labels, _ = answers(50, 5)
    before, rest = logits.clone(), others(logits, labels)
    true = torch.nn.functional.one_hot(labels, 5).bool()
    assert (rest[true] == float("-inf")).all()
    assert torch.equal(rest[~true], logits[~true])
    assert torch.equal(logits, before)


def test_ranked_targets_are_every_wrong_class_the_likeliest_first() -> None:
    logits, labels, _ = answers(50, 5)
    ranked = torch.stack([ranked_targets(logits, labels, rank) for rank in range(4)], 1)
    for z, y, found in zip(logits.numpy(), labels.tolist(), ranked.tolist(), strict=True):
        assert found == [k for k in np.argsort(-z) if k != y]


def test_the_median_gap_is_that_between_the_two_largest_logits_whatever_the_label() -> None:
    logits, _, _ = answers(51, 5)
    ordered = np.sort(logits.numpy(), axis=1)
    assert median_gap(logits) == pytest.approx(np.median(ordered[:, -1] - ordered[:, -2]))
    assert median_gap(logits / median_gap(logits)) == pytest.approx(1.0)
