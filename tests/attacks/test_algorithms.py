from dataclasses import replace

import pytest

from gmmcli.attacks.algorithms import check
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
