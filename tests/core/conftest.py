"""A network small enough to differentiate by hand: one linear map from 1 x 2 x 2 images to three features."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gmmcli.core.classifier import Classifier
from gmmcli.core.heads import MaxMahalanobisHead

SHAPE = (1, 2, 2)


@pytest.fixture
def global_generators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is done beside this fixture must leave every global generator of torch as it was, that of a GPU too."""
    for module in (torch.cuda, torch.mps, torch.xpu, torch.mtia):  # torch.manual_seed seeds them all, also where there is no such device
        for name in ("manual_seed", "manual_seed_all"):
            monkeypatch.setattr(module, name, lambda seed, name=f"{module.__name__}.{name}": pytest.fail(f"{name}({seed})"), raising=False)
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    yield
    after = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    assert all(map(torch.equal, states, after))


@pytest.fixture
def linear_model(generator: torch.Generator) -> Classifier:
    """``phi(x) = W x`` with W of shape (3, 4), and three means of norm 2."""
    layer = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 4, generator=generator) / 2)
    return Classifier(nn.Sequential(nn.Flatten(), layer), MaxMahalanobisHead(3, 3, 2.0))


@pytest.fixture
def weight(linear_model: Classifier) -> torch.Tensor:
    """The W of ``linear_model``."""
    return linear_model.backbone.get_parameter("1.weight").detach()
