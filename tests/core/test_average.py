"""The average of weights in closed form."""

import math

import pytest
import torch

from gmmcli.core.average import average_in, averaging
from gmmcli.core.classifier import Classifier
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.types import to_model

YES, NO = torch.tensor(True), torch.tensor(False)


def classifier(norm: str = "batch") -> Classifier:
    backbone = WideResNet(depth=10, width=1, norm=norm)  # type: ignore[arg-type]  # one of its three words
    return Model(backbone=backbone).build(10, 1, seed=3)


def wander(model: Classifier, generator: torch.Generator) -> None:
    """Move every parameter and floating buffer by chance, and count."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor) if tensor.is_floating_point() else 1)


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.998])
def test_after_several_updates_it_is_the_weighted_sum_of_all_models(generator: torch.Generator, decay: float) -> None:
    model = classifier()
    seen = [{name: tensor.double() for name, tensor in model.state_dict().items()}]
    average = averaging(model)
    for n in range(6):
        wander(model, generator)
        seen.append({name: tensor.double() for name, tensor in model.state_dict().items()})
        average_in(average, model, decay, n, YES)
    kept = [min(decay, share) for share in (1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15)]
    weights = [share * math.prod(kept[i:]) for i, share in enumerate([1.0, *(1 - d for d in kept)])]
    assert sum(weights) == pytest.approx(1)
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            expected = sum(weight * one[name] for weight, one in zip(weights, seen, strict=True))
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-4, atol=1e-5)
        else:
            assert int(tensor) == int(seen[-1][name]) == 6


def test_an_unhealthy_update_moves_nothing_not_even_towards_nan(generator: torch.Generator) -> None:
    model = classifier()
    average = averaging(model)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    wander(model, generator)
    for buffer in model.buffers():  # statistics of a forward that went wrong
        if buffer.is_floating_point():
            buffer.fill_(torch.nan)
    average_in(average, model, 0.9, 0, NO)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


def test_an_average_of_one_model_is_that_model() -> None:
    model = classifier("none")
    average = averaging(model)
    for n in range(5):
        average_in(average, model, 0.9, n, YES)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in average.state_dict().items())


def test_it_is_a_copy_that_wants_no_gradients_and_lies_in_memory_as_the_model_does(generator: torch.Generator) -> None:
    model = classifier()
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    images = to_model(torch.randint(0, 256, (4, 1, 8, 8), generator=generator).byte())
    average = averaging(model)
    assert model.training and not average.training
    assert all(p.requires_grad for p in model.parameters()) and not any(p.requires_grad for p in average.parameters())
    assert [p.stride() for p in average.parameters()] == [p.stride() for p in model.parameters()]
    torch.testing.assert_close(average(images), model.eval()(images))
    wander(model, generator)
    assert not torch.equal(average(images), model(images))
