from typing import Any

import pytest
import torch
from linear import block_images, blocks
from torch import Tensor

from gmmcli.attacks.attack import Norm, Outcome
from gmmcli.attacks.verify import verify
from gmmcli.errors import GmmcError


def claimed(pixels: Tensor, adversarial: Tensor) -> Outcome:
    """An attack that says it has broken everything."""
    return Outcome(torch.zeros(len(pixels), dtype=torch.bool), adversarial, 0, 0, 0)


@pytest.mark.parametrize(
    ("norm", "eps", "move"),
    [
        ("linf", 0.1, lambda x: x + 0.11),
        ("linf", 0.1, lambda x: x + 0.1001 * (torch.arange(64).view(8, 8) == 5)),
        ("l2", 0.5, lambda x: x + 0.51 / 8),
        ("linf", 0.9, lambda x: x - 0.6),
        ("linf", 0.9, lambda x: x + 0.6),
    ],
)
def test_an_attack_that_leaves_ball_or_range_is_a_bug_and_no_result(norm: Norm, eps: float, move: Any) -> None:
    model = blocks(2)
    pixels = torch.full((2, 1, 8, 8), 0.5)
    verify(model, pixels, torch.tensor([1, 1]), claimed(pixels, pixels + 0.01), eps, norm)
    with pytest.raises(GmmcError, match="left its ball"):
        verify(model, pixels, torch.tensor([1, 1]), claimed(pixels, move(pixels)), eps, norm)


def test_an_attack_that_claims_what_is_classified_rightly_is_one_too() -> None:
    model = blocks(2)
    pixels, labels = block_images(2)
    with pytest.raises(GmmcError, match="classified correctly") as caught:
        verify(model, pixels, labels, claimed(pixels, pixels), 0.1, "linf")
    assert "--float64" in caught.value.hint
    unbroken = Outcome(torch.ones(4, dtype=torch.bool), pixels, 0, 0, 0)
    verify(model, pixels, labels, unbroken, 0.1, "linf")
