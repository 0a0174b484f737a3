from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gmmcli.core.classifier import Classifier, frozen, predict
from gmmcli.core.heads import LDA, Linear
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import Norm, WideResNet
from gmmcli.types import to_model

TINY = WideResNet(depth=10, width=1, norm="batch", init="kaiming")


@pytest.fixture
def model() -> Classifier:
    return Model(TINY).build(4, 1, seed=3)


@pytest.fixture
def raw(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(256, (11, 1, 8, 8), generator=generator).byte()


def test_logits_are_the_head_over_the_features(model: Classifier, raw: torch.Tensor) -> None:
    model.eval()
    images = to_model(raw)
    assert model.features(images).shape == (11, 64)
    assert torch.equal(model(images), model.head(model.features(images)))
    torch.testing.assert_close(model(images), -(torch.cdist(model.features(images), model.means) ** 2) / 2)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_bf16_features_are_float32_and_close(norm: Norm, raw: torch.Tensor) -> None:
    model = Model(WideResNet(depth=10, width=1, norm=norm, init="kaiming")).build(4, 1, seed=3).eval()
    images = to_model(raw)
    exact = model.features(images)
    model.bf16 = True
    rounded = model.features(images)
    assert rounded.dtype == torch.float32 and model(images).dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.03
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_frozen_means_evaluation_without_parameter_gradients(model: Classifier, raw: torch.Tensor) -> None:
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        images = to_model(raw).requires_grad_()
        model(images).sum().backward()
    assert images.grad is not None and all(p.grad is None for p in model.parameters())


def test_frozen_restores_everything_even_after_an_error(model: Classifier) -> None:
    """Also what was half frozen before: a module in evaluation mode, a parameter that is not learnt."""
    model.backbone.get_submodule("norm").eval()
    model.backbone.get_parameter("stem.weight").requires_grad_(False)
    modes = {name: module.training for name, module in model.named_modules()}
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(KeyError), frozen(model):
        raise KeyError
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wanted


def test_the_gradient_of_the_images_is_all_that_a_frozen_model_computes(model: Classifier, raw: torch.Tensor) -> None:
    masks = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket.__name__ == "convolution_backward":
                masks.append(args[-1])
            return func(*args, **(kwargs or {}))

    with frozen(model):
        images = to_model(raw).requires_grad_()
        with Watched():
            torch.autograd.grad(model.features(images).sum(), images)
    assert masks == [[True, False, False]] * 9


@pytest.mark.parametrize("size", [1, 4, 11, 500])
def test_predict_is_a_direct_forward_in_evaluation_mode_whatever_the_batch(
    model: Classifier, raw: torch.Tensor, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.core.classifier.batch_size", lambda model, like: size)
    logits = predict(model.train(), raw)
    assert model.training and not logits.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(to_model(raw)), rtol=1e-4, atol=1e-3)


def test_predict_leaves_batch_statistics_and_bytes_alone(model: Classifier, raw: torch.Tensor) -> None:
    before, kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}, raw.clone()
    predict(model.train(), raw)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(raw, kept)
    model(to_model(raw))  # where a forward in training mode does move them
    assert not torch.equal(model.state_dict()["backbone.norm.running_mean"], before["backbone.norm.running_mean"])


def test_weights_are_a_function_of_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(Model(TINY, Linear()).build(4, 3, seed).parameters())

    first = weights(1)
    torch.rand(5)
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.usefixtures("global_generators")
def test_building_leaves_every_global_generator_alone(seed: int | None) -> None:
    Model(TINY).build(4, 1, seed)


def test_means_belong_to_gaussian_heads_only(model: Classifier) -> None:
    assert model.means is model.head.means
    assert Model(TINY, LDA()).build(4, 1).means.requires_grad
    with pytest.raises(TypeError, match="LinearHead has no class means"):
        _ = Model(TINY, Linear()).build(4, 1).means


def test_a_head_of_another_class_has_means_where_it_says_so(model: Classifier) -> None:
    head = nn.Linear(64, 4)
    assert not Classifier(model.backbone, head).has_means
    head.register_buffer("means", torch.eye(4, 64))
    assert Classifier(model.backbone, head).has_means
    assert torch.equal(Classifier(model.backbone, head).means, torch.eye(4, 64))


def test_a_new_classifier_has_no_variance_yet(model: Classifier) -> None:
    assert model.gamma2 is None and not model.bf16


def test_more_classes_than_the_features_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="66 classes and 64 features"):
        Model(TINY).build(66, 1)
