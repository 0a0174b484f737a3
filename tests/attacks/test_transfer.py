"""What an attack on one model does to another."""

import pytest
import torch
from linear import block_images, blocks, linear, tangled

from gmmcli.attacks.attack import Attack
from gmmcli.attacks.transfer import transfer_over_eps, transferred
from gmmcli.attacks.within_ball import over_eps

MARGIN = Attack("pgd", "margin", steps=4)


@pytest.mark.parametrize("eps", [[0.035, 0.065], [0.065, 0.035]])
def test_to_the_same_boundaries_everything_transfers(eps: list[float]) -> None:
    """Gaps of 0.06 and 0.12: images at 0.03 and 0.06 from the boundary."""
    pixels, labels = block_images(2)
    told: list[tuple[float, int, int]] = []
    fell, found = transfer_over_eps(MARGIN, blocks(2, scale=3.0), blocks(2), pixels, labels, eps, lambda *words: told.append(words))
    assert fell.tolist() == [0.035, 0.035, 0.065, 0.065]
    assert (blocks(2)(found).argmax(1) != labels).all()
    assert told == [(0.035, 4, 2), (0.065, 4, 0)]


def test_an_attack_goes_on_where_the_surrogate_is_deceived_already() -> None:
    """The surrogate's boundary is nearer by half: an attack that stopped there would deceive nobody else."""
    pixels, labels = block_images(2)
    wide, surrogate = blocks(2), blocks(2)
    surrogate.model.head.bias.data = torch.tensor([-0.5, 0.5])
    right = (surrogate(pixels).argmax(1) == labels) & (labels == 0)
    stopped = over_eps(MARGIN, surrogate, pixels[right], labels[right], [0.065])[1]
    assert (wide(stopped).argmax(1) == labels[right]).any()
    fell, _ = transfer_over_eps(MARGIN, surrogate, wide, pixels[right], labels[right], [0.065])
    assert fell.isfinite().all()


def test_what_is_wrong_from_the_start_fell_at_0_and_is_not_changed() -> None:
    pixels, labels = block_images(2)
    labels[0] = 1 - labels[0]
    fell, found = transfer_over_eps(MARGIN, blocks(2), blocks(2), pixels, labels, [0.035])
    assert fell.tolist() == [0.0, 0.035, float("inf"), float("inf")]
    assert torch.equal(found[[0, 2, 3]], pixels[[0, 2, 3]])


def test_what_transfers_is_what_the_other_model_misclassifies() -> None:
    model, pixels, labels = tangled(4)
    moved = (pixels + 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 1)
    fallen = transferred(model, moved, pixels, labels, 0.1)
    assert torch.equal(fallen, model(moved).argmax(1) != labels)
    assert not transferred(model, pixels, pixels, labels, 0.1).any()


def test_of_no_images_none_transfers() -> None:
    model = linear(torch.eye(3, 64))
    nothing = torch.empty(0, 1, 8, 8)
    assert transferred(model, nothing, nothing, torch.empty(0, dtype=torch.long), 0.1).shape == (0,)


def test_nothing_transfers_from_outside_the_ball() -> None:
    model, pixels, labels = tangled(4)
    with pytest.raises(AssertionError):
        transferred(model, (pixels - 0.2).clamp(min=0) + 0.1, pixels, labels, 0.05)
