"""Attacks in several processes: each takes its share of the chunks, and the outcome is that of one."""

from typing import Any

import pytest
import torch

from gmmcli.attacks.attack import Attack
from gmmcli.attacks.pixel_model import PixelModel
from gmmcli.attacks.within_ball import over_eps
from gmmcli.core.classifier import frozen
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.distributed import world
from ranks import on_ranks

EPS = (2 / 255, 8 / 255)


def _over_eps(attack: Attack) -> tuple[list[Any], list[tuple[float, int, int]], int]:
    model = PixelModel(Model(WideResNet(depth=10, width=1, init="kaiming")).build(3, 1, seed=3))
    pixels = torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    told: list[tuple[float, int, int]] = []
    with frozen(model):
        with torch.no_grad():
            labels = model(pixels).argmax(1)
        labels[4] = (labels[4] + 1) % 3  # one is classified wrongly from the start
        fell, adversarial, outcomes = over_eps(attack, model, pixels, labels, EPS, lambda *about: told.append(about))
    counts = [(one.unbroken.tolist(), one.forwards, one.gradients, one.zero_gradients) for one in outcomes]
    return [fell.tolist(), adversarial.tolist(), counts], told, world().rank


@pytest.mark.parametrize(
    "attack", [Attack("pgd", "margin", steps=3), Attack("square", "margin", steps=20), Attack("pgd", "ce-scaled", steps=2)]
)
def test_images_fall_as_in_one_process(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: chunks are composed alike, and who shares a chunk shares what it draws."""
    monkeypatch.setattr("gmmcli.attacks.within_ball.CHUNK", 3)
    alone, told, _ = _over_eps(attack)
    assert 0 in alone[0] and {eps for eps, *_ in told} == set(EPS)
    found = on_ranks(3, _over_eps, attack)
    assert [outcome for outcome, *_ in found] == [alone] * 3
    assert all(done <= 11 and left <= 11 for _, progress, _ in found for _, done, left in progress)
    assert all(len(progress) < len(told) for _, progress, _ in found)
