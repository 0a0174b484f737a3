import math
from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gmmcli.core.backbones import SLOPE, Norm, WideResNet


def conv(inputs: int, outputs: int, size: int) -> int:
    return outputs * inputs * size**2 + outputs


def expected_parameters(depth: int, width: int, channels: int, norm: Norm) -> int:
    """Weights and biases of WRN-depth-width without its last layer, counted layer by layer."""
    affine = 0 if norm == "none" else 2
    total, inputs = conv(channels, 16, 3), 16
    for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range((depth - 4) // 6):
            total += conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + affine * (inputs + outputs)
            if inputs != outputs or (group > 0 and block == 0):
                total += conv(inputs, outputs, 1)
            inputs = outputs
    return total + affine * inputs


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(("depth", "width", "channels"), [(28, 10, 3), (16, 2, 1), (10, 1, 3), (40, 4, 3)])
def test_networks_have_the_parameters_that_paper_and_pencil_give(depth: int, width: int, channels: int, norm: Norm) -> None:
    with torch.device("meta"):
        network = WideResNet(depth=depth, width=width, norm=norm).build(channels)
    assert sum(p.numel() for p in network.parameters()) == expected_parameters(depth, width, channels, norm)


def test_default_is_the_papers_network() -> None:
    table = WideResNet()
    assert (table.depth, table.width, table.norm, table.dim) == (28, 10, "none", 640)


def test_with_batch_norm_it_has_the_size_that_everybody_reports() -> None:
    """36,479,194 on CIFAR-10: the usual WRN-28-10 has no biases beside its norms, and a last layer of 640 x 10 + 10."""
    with torch.device("meta"):
        network = WideResNet(norm="batch").build(3)
    biases = sum(layer.bias.numel() for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None)
    assert sum(p.numel() for p in network.parameters()) - biases + 6_410 == 36_479_194


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 15, 28, 64])
def test_any_image_becomes_one_feature_vector(size: int, channels: int, norm: Norm, stem_stride: Literal[1, 2]) -> None:
    table = WideResNet(depth=10, width=1, norm=norm, stem_stride=stem_stride)
    network = table.build(channels)
    maps = []
    network.blocks.register_forward_hook(lambda _, __, output: maps.append(output.shape))
    features = network(torch.zeros(2, channels, size, size))
    assert features.shape == (2, table.dim) == (2, network.dim)
    side = math.ceil(size / (4 * stem_stride))
    assert maps == [(2, 64, side, side)]


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_features_are_the_written_out_network(norm: Norm, generator: torch.Generator) -> None:
    """Pre-activation blocks around a shortcut, the stride in the second convolution, then norm, LeakyReLU and the mean."""
    network = WideResNet(depth=16, width=1, norm=norm).build(3).eval()
    weights = {
        name: torch.rand(tensor.shape, generator=generator) - 0.4 if "conv" not in name and tensor.ndim == 1 else tensor
        for name, tensor in network.state_dict().items()
    }
    weights |= {name: tensor.abs() + 0.5 for name, tensor in weights.items() if name.endswith("running_var")}
    network.load_state_dict(weights)

    def normed(x: torch.Tensor, at: str) -> torch.Tensor:
        if norm == "batch":
            mean, var, weight, bias = (weights[f"{at}.{w}"] for w in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, mean, var, weight, bias)
        if norm == "group":
            x = F.group_norm(x, 8, weights[f"{at}.weight"], weights[f"{at}.bias"])
        return torch.where(x > 0, x, 0.2 * x)

    def conv2d(x: torch.Tensor, at: str, stride: int = 1) -> torch.Tensor:
        weight = weights[f"{at}.weight"]
        return F.conv2d(x, weight, weights[f"{at}.bias"], stride, padding=weight.shape[-1] // 2)

    images = torch.rand(2, 3, 8, 8, generator=generator)
    x = conv2d(images, "stem")
    for i, stride in enumerate((1, 1, 2, 1, 2, 1)):
        at = f"blocks.{i}"
        h = conv2d(normed(x, f"{at}.norm1"), f"{at}.conv1")
        h = conv2d(normed(h, f"{at}.norm2"), f"{at}.conv2", stride)
        x = h + (conv2d(x, f"{at}.shortcut", stride) if stride == 2 else x)
    torch.testing.assert_close(network(images), normed(x, "norm").mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_kaiming_keeps_the_scale_of_a_leaky_relu() -> None:
    torch.manual_seed(0)
    network = WideResNet(depth=10, width=4, init="kaiming").build(3)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 1 + 3 * 3
    for layer in convolutions:
        expected = math.sqrt(2 / (1 + SLOPE**2) / (layer.in_channels * layer.kernel_size[0] ** 2))
        assert math.isclose(layer.weight.detach().std(), expected, rel_tol=5 / math.sqrt(2 * layer.weight.numel()))
        assert layer.bias is not None and not layer.bias.any()


def test_torch_init_leaves_pytorchs_own_bounds() -> None:
    layer = WideResNet(depth=10, width=4).build(3).blocks[0].conv2
    bound = 1 / math.sqrt(64 * 9)
    assert 0.98 * bound < layer.weight.max() <= bound and layer.bias.any()


def test_network_without_norm_and_bias_is_positively_homogeneous(generator: torch.Generator) -> None:
    """Convolutions and LeakyReLUs alone: ``phi(c x) = c phi(x)`` for c > 0."""
    network = WideResNet(depth=10, width=1, init="kaiming").build(3)
    images = torch.rand(2, 3, 8, 8, generator=generator)
    torch.testing.assert_close(network(0.3 * images), 0.3 * network(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(-images), -network(images), rtol=0.1)


@pytest.mark.parametrize(("depth", "nearest"), [(1, 10), (9, 10), (11, 10), (14, 16), (26, 28), (27, 28), (30, 28), (33, 34)])
def test_depths_that_do_not_exist_name_the_nearest_that_does(depth: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"got {depth}; the nearest is {nearest}$"):
        WideResNet(depth=depth)
    assert WideResNet(depth=nearest).depth == nearest
