from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from gmmcli.core.classifier import Classifier
from gmmcli.core.heads import Linear, MaxMahalanobisHead
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.errors import DivergedError
from gmmcli.metrics.outputs import outputs
from gmmcli.types import to_model

TINY = WideResNet(depth=10, width=1, norm="batch", init="kaiming")
N, SIZE = 23, 20


@pytest.fixture
def twenty_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.outputs.batch_size", lambda model, like: SIZE)


@pytest.fixture
def model() -> Classifier:
    return Model(TINY).build(4, 1, seed=3)


@pytest.fixture
def raw(generator: torch.Generator) -> Tensor:
    return torch.randint(256, (N, 1, 8, 8), generator=generator).byte()


@pytest.mark.usefixtures("twenty_at_a_time")
@pytest.mark.parametrize("gamma2", [None, 5.0])
def test_outputs_are_the_models_a_batch_at_a_time(model: Classifier, raw: Tensor, gamma2: float | None) -> None:
    found = outputs(model, raw, gamma2)
    model.eval()
    with torch.no_grad():
        for part in (slice(0, SIZE), slice(SIZE, N)):
            assert torch.equal(found.features[part], model.features(to_model(raw[part])))
            assert torch.equal(found.logits[part], model(to_model(raw[part])))
    assert not found.features.requires_grad and not found.logits.requires_grad


def test_no_gradient_is_taken_unless_asked_for(model: Classifier, raw: Tensor) -> None:
    assert outputs(model, raw[:2]).mass is None


def numerical_gradients(model: Classifier, images: Tensor, gamma2: float, step: float = 1e-6) -> Tensor:
    exact = deepcopy(model).eval().double()
    moves = step * torch.eye(images[0].numel(), dtype=torch.float64).view(-1, *images.shape[1:])

    def log_px(x: Tensor) -> Tensor:
        return torch.logsumexp(-torch.cdist(exact.backbone(x), exact.means).square() / (2 * gamma2), 1)

    with torch.no_grad():
        return torch.stack([(log_px(x + moves) - log_px(x - moves)) / (2 * step) for x in images.double()])


@pytest.mark.parametrize("gamma2", [0.3, 1.0, 50.0])
def test_mass_is_the_norm_of_a_numerical_gradient(model: Classifier, raw: Tensor, gamma2: float) -> None:
    expected = numerical_gradients(model, to_model(raw[:4]), gamma2).norm(dim=1)
    found = outputs(model, raw[:4], gamma2).mass
    assert found is not None
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_mass_of_a_linear_map_in_closed_form(generator: torch.Generator) -> None:
    gamma2, raw = 0.7, torch.randint(256, (9, 1, 2, 2), generator=generator).byte()
    layer = nn.Linear(4, 3, bias=False)
    nn.init.normal_(layer.weight, generator=generator)
    model = Classifier(nn.Sequential(nn.Flatten(), layer), MaxMahalanobisHead(3, 3, 2.0))
    weight, means = layer.weight.detach().double(), model.means.double()
    phi = to_model(raw).flatten(1).double() @ weight.T
    responsibility = torch.softmax(-torch.cdist(phi, means).square() / (2 * gamma2), 1)
    gradient = (responsibility @ means - phi) @ weight / gamma2
    torch.testing.assert_close(outputs(model, raw, gamma2).mass, gradient.norm(dim=1).float(), rtol=1e-5, atol=0)


def test_mass_is_taken_image_by_image_in_the_order_of_the_images(model: Classifier, raw: Tensor, generator: torch.Generator) -> None:
    order = torch.randperm(N, generator=generator)
    straight, shuffled = outputs(model, raw, 5.0).mass, outputs(model, raw[order], 5.0).mass
    assert straight is not None and shuffled is not None
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-4, atol=0)


def test_a_linear_head_has_a_mass_too(raw: Tensor) -> None:
    mass = outputs(Model(TINY, Linear()).build(4, 1, seed=3), raw[:3], 1.0).mass
    assert mass is not None and mass.shape == (3,) and bool((mass > 0).all())


@pytest.mark.parametrize("gamma2", [None, 5.0])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_images_are_left_as_they_were(model: Classifier, raw: Tensor, gamma2: float | None, training: bool) -> None:
    model.train(training).backbone.get_parameter("stem.weight").requires_grad_(False)
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    before, kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}, raw.clone()
    outputs(model, raw, gamma2)
    assert all(module.training == training for module in model.modules())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(raw, kept)


@pytest.mark.usefixtures("twenty_at_a_time")
def test_parameters_ask_for_no_gradient_during_the_pass(model: Classifier, raw: Tensor) -> None:
    seen = []
    model.backbone.register_forward_hook(lambda *_: seen.append((model.training, any(p.requires_grad for p in model.parameters()))))
    outputs(model, raw, 5.0)
    assert seen == [(False, False)] * 2


@pytest.mark.usefixtures("twenty_at_a_time")
@pytest.mark.parametrize(("n", "told"), [(1, [1]), (SIZE, [SIZE]), (N, [SIZE, N])])
def test_progress_is_told_in_images(model: Classifier, raw: Tensor, n: int, told: list[int]) -> None:
    seen: list[int] = []
    outputs(model, raw[:n], progress=seen.append)
    assert seen == told


class BrokenAboveGrey(nn.Module):
    """Features are all ``value`` for images brighter than the middle grey."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3)) > 0
        return torch.where(bright[:, None], self.value, self.scale * images.flatten(1)[:, :3])


@pytest.mark.usefixtures("twenty_at_a_time")
@pytest.mark.parametrize("gamma2", [None, 1.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_images_without_finite_logits_are_counted_over_all_batches(value: float, gamma2: float | None) -> None:
    model = Classifier(BrokenAboveGrey(value), MaxMahalanobisHead(3, 3, 2.0))
    raw = torch.zeros(N, 1, 2, 2, dtype=torch.uint8)
    assert len(outputs(model, raw, gamma2).logits) == N
    raw[[0, 7, SIZE + 1]] = 255
    with pytest.raises(DivergedError, match=f"not finite for 3 of {N} images") as caught:
        outputs(model, raw, gamma2)
    assert "--best" in caught.value.hint
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
