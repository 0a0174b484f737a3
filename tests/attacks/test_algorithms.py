from dataclasses import replace

import pytest
import torch
from linear import tangled

from gmmcli.attacks.adversary import AttackState
from gmmcli.attacks.algorithms import _Counting, check, fingerprints
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.losses import LOSSES
from gmmcli.errors import RecipeError

KINDS = [
    Attack("fgsm", "margin"),
    *(Attack(kind, "margin", norm, steps) for norm in ("linf", "l2") for kind, steps in (("pgd", 5), ("apgd", 5), ("square", 10))),
]
EVERY_KIND = pytest.mark.parametrize("attack", KINDS, ids=lambda attack: f"{attack.kind}-{attack.norm}")


@pytest.mark.parametrize(
    ("attack", "n_classes", "message"),
    [
        (Attack("pgd", "logits"), 10, "no attack loss 'logits'"),
        (Attack("pgd", "dlr"), 2, "loss dlr compares 3 logits, and this run has 2 classes"),
        (Attack("apgd", "dlr-targeted"), 3, "loss dlr-targeted compares 4 logits, and this run has 3 classes"),
        (Attack("fgsm", "ce", "l2"), 10, "fgsm has no l2 form"),
        (Attack("pgdd"), 10, "no attack 'pgdd'"),
    ],
)
def test_what_cannot_be_attacked_with_is_said_in_a_sentence_and_a_hint(attack: Attack, n_classes: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        check(attack, n_classes)
    assert caught.value.hint


@EVERY_KIND
def test_what_can_is_not_complained_of(attack: Attack) -> None:
    for loss in LOSSES:
        check(replace(attack, loss=loss), LOSSES[loss].n_classes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fingerprints_tell_images_apart_by_their_last_bit_and_by_the_order_of_their_pixels(dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    nudged, turned = image.clone(), image.flip(3)
    nudged[0, 2, 7, 7] = torch.nextafter(nudged[0, 2, 7, 7], torch.tensor(2.0, dtype=dtype))
    same, first, second, third = fingerprints(torch.cat([image, image, nudged, turned])).tolist()
    assert same == first and len({first, second, third}) == 3
    assert fingerprints(image.contiguous(memory_format=torch.channels_last)).tolist() == [first]
    assert len(fingerprints(torch.eye(64, dtype=dtype).view(64, 1, 8, 8)).unique()) == 64
    assert fingerprints(image[:0]).shape == (0,)


def test_square_sees_the_logits_of_every_image_the_first_time_and_again_black_ones_too() -> None:
    model, pixels, labels = tangled(4)
    pixels[:2] = torch.tensor([0.0, 1.0])[:, None, None, None]
    state = AttackState.of(pixels, labels, labels, LOSSES["margin"], 1.0)
    counting = _Counting(model, state)
    for expected in (12, 12):
        torch.testing.assert_close(counting(pixels), model(pixels))
        assert state.forwards == expected
    torch.testing.assert_close(counting(pixels.flip(0) * 0.5), model(pixels.flip(0) * 0.5))
    assert state.forwards == 12 + 11  # half of black is black
