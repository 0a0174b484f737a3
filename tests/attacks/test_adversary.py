import pytest
import torch
from linear import blocks, tangled
from torch import Tensor
from torch.nn import functional as F

from gmmcli.attacks.adversary import Adversary, AllBroken, AttackState, gradient
from gmmcli.attacks.losses import LOSSES, AttackLoss, ranked_targets
from gmmcli.attacks.pixel_model import PixelModel


def attacked(loss: str = "margin", scale: float = 1.0, dropping: bool = True) -> tuple[PixelModel, Tensor, AttackState]:
    """A network of five classes, twelve images, and the state an attack on them starts with."""
    model, pixels, labels = tangled(5)
    targets = ranked_targets(model(pixels), labels, 0)
    return model, pixels, AttackState.of(pixels, labels, targets, LOSSES[loss], scale, dropping)


def at_unit_size(gradient: torch.Tensor) -> torch.Tensor:
    return gradient / gradient.abs().amax((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 0.05])
@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropy_of_the_adversary_has_the_gradient_of_the_loss_at_unit_size(name: str, scale: float, reduction: str) -> None:
    model, pixels, state = attacked(loss=name, scale=scale)
    x = pixels.clone().requires_grad_()
    disguised = F.cross_entropy(Adversary(model, state, linear=True)(x), torch.zeros_like(state.labels), reduction=reduction)
    (seen,) = torch.autograd.grad(disguised, x)
    (true,) = torch.autograd.grad(LOSSES[name].value(model(x) / scale, state.labels, state.targets).sum(), x)
    assert true.abs().amax() > 0
    torch.testing.assert_close(seen, at_unit_size(true), rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_loss_wherever_the_loss_stands() -> None:
    """The cross-entropy of -l itself would be flat here."""
    model, pixels, state = attacked()
    state.loss = AttackLoss(lambda logits, labels, targets: 1e3 * logits.sum(1) - 1e6)
    x = pixels.clone().requires_grad_()
    disguised = F.cross_entropy(Adversary(model, state, linear=True)(x), torch.zeros_like(state.labels), reduction="sum")
    (seen,) = torch.autograd.grad(disguised, x)
    (true,) = torch.autograd.grad(1e3 * model(x).sum(), x)
    torch.testing.assert_close(seen, at_unit_size(true), rtol=1e-4, atol=1e-5)


def test_a_mean_over_the_batch_pushes_no_gradient_below_what_float32_holds() -> None:
    """Slopes of 1e-44, next to the smallest number there is: a 24th of them, which the mean of twelve would leave, is 0."""
    model, pixels, state = attacked()
    model.forward = lambda images: images.flatten(1)[:, :5]  # type: ignore[method-assign]
    state.loss, state.dropping = AttackLoss(lambda logits, labels, targets: 1e-44 * logits.sum(1)), False
    x = pixels.clone().requires_grad_()
    disguised = F.cross_entropy(Adversary(model, state, linear=True)(x), torch.zeros_like(state.labels))
    (gradient,) = torch.autograd.grad(disguised, x)
    assert torch.equal(gradient.flatten(1), (torch.arange(64) < 5).float().expand(12, -1))
    assert (state.gradients, state.zero_gradients) == (12, 0)
    assert not (torch.tensor(1e-44) / 24).any()


def broken_at(state: AttackState, rows: list[int]) -> None:
    """Have the model be wrong about these images: by another label."""
    state.labels[rows] = (state.labels[rows] + 1) % 5


@pytest.mark.parametrize("disguised", [True, False])
def test_what_is_broken_leaves_the_computation_and_is_kept(disguised: bool) -> None:
    model, pixels, state = attacked()
    broken_at(state, [2, 7])
    adversary = Adversary(model, state, linear=disguised)
    adversary(pixels)
    assert (~state.unbroken).nonzero().squeeze(1).tolist() == [2, 7]
    moved = (pixels + 0.01).requires_grad_()
    output = adversary(moved)
    assert torch.equal(state.found, pixels)
    (gradient,) = torch.autograd.grad(output[:, 0].sum(), moved)
    assert (gradient.flatten(1) == 0).all(1).nonzero().squeeze(1).tolist() == [2, 7]
    assert state.forwards == 12 + 10


def test_the_image_kept_is_that_of_the_step_that_broke_it() -> None:
    model = blocks(2)
    bright, dark = torch.full((1, 1, 8, 8), 0.2), torch.full((1, 1, 8, 8), 0.2)
    bright.flatten(1)[:, :16], dark.flatten(1)[:, 16:32] = 0.8, 0.8
    clean = torch.cat([bright, bright])
    labels = torch.tensor([0, 0])
    state = AttackState.of(clean, labels, 1 - labels, LOSSES["margin"], 1.0)
    adversary = Adversary(model, state, linear=True)
    for step in (clean, torch.cat([bright, dark]), clean):
        adversary(step)
    assert state.unbroken.tolist() == [True, False]
    assert torch.equal(state.found, torch.cat([bright, dark]))


def test_a_broken_row_is_misclassified_in_the_eyes_of_an_attack_that_reads_logits() -> None:
    model, pixels, state = attacked()
    broken_at(state, [0, 5])
    adversary = Adversary(model, state, linear=False)
    adversary(pixels)
    output = adversary(pixels)
    assert (output.argmax(1) != state.labels).nonzero().squeeze(1).tolist() == [0, 5]
    unbroken = state.unbroken
    torch.testing.assert_close(output[unbroken], model(pixels[unbroken]))


@pytest.mark.parametrize("disguised", [True, False])
def test_when_nothing_stands_any_more_the_attack_is_told(disguised: bool) -> None:
    model, pixels, state = attacked()
    broken_at(state, list(range(12)))
    adversary = Adversary(model, state, linear=disguised)
    adversary(pixels)
    with pytest.raises(AllBroken):
        adversary(pixels)
    assert state.forwards == 12


def test_without_dropping_everything_goes_on() -> None:
    model, pixels, state = attacked(dropping=False)
    broken_at(state, list(range(12)))
    adversary = Adversary(model, state, linear=True)
    for _ in range(3):
        adversary(pixels)
    assert state.unbroken.all()
    assert state.forwards == 3 * 12


def test_gradients_are_counted_of_standing_images_and_the_zeros_among_them() -> None:
    model, pixels, state = attacked(loss="ce")
    model.scale = 1e-5
    broken_at(state, [0, 1, 2])
    for loss in ("ce", "margin"):
        state.loss = LOSSES[loss]
        x = pixels.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(Adversary(model, state, linear=True)(x), torch.zeros_like(state.labels)), x)
    assert (state.gradients, state.zero_gradients) == (9 + 9, 9)


@pytest.mark.parametrize("linear", [True, False])
def test_an_image_that_has_not_moved_does_not_pass_again(linear: bool) -> None:
    """Its output and gradient are those of before, also where the caller writes into the very tensor that it gave."""
    model, pixels, state = attacked()
    adversary, x = Adversary(model, state, linear), pixels.clone()
    for moved in ([], [], [3, 7], [7], []):
        x[moved] = (x[moved] + 0.01).clamp(0, 1)
        given = x.detach().requires_grad_()  # shares its memory with x
        output = adversary(given)
        (direction,) = torch.autograd.grad(output[:, 0].sum(), given)
        fresh = x.clone().requires_grad_()
        expected = Adversary(model, AttackState.of(pixels, state.labels, state.targets, state.loss, 1.0), linear)(fresh)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(direction, torch.autograd.grad(expected[:, 0].sum(), fresh)[0])
    assert state.forwards == 12 + 0 + 2 + 1 + 0
    assert state.gradients == 5 * 12


def test_no_more_images_pass_at_a_time_than_the_device_is_quick_with(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels, state = attacked()
    whole = gradient(Adversary(model, state, linear=True), pixels)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    monkeypatch.setattr(PixelModel, "at_a_time", lambda self, images: 5)
    torch.testing.assert_close(gradient(Adversary(model, state, linear=True), pixels), whole)
    assert seen == [5, 5, 2]


def test_a_look_without_gradients_counts_none() -> None:
    model, pixels, state = attacked()
    Adversary(model, state, linear=True)(pixels)
    assert (state.forwards, state.gradients) == (12, 0)


def test_a_fresh_batch_stands_and_has_found_nothing_but_the_clean_images() -> None:
    _, pixels, state = attacked()
    assert state.unbroken.all()
    assert torch.equal(state.found, pixels)
    state.found.zero_()
    assert pixels.any()
