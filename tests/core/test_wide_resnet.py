import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gmmcli.core.classifier import frozen
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import SLOPE, Downsample, GroupNorm, Norm, WideResNet, WideResNetFeatures


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


@pytest.mark.parametrize("downsample", ["stride", "avg-pool"])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(("depth", "width", "channels"), [(28, 10, 3), (16, 2, 1), (10, 1, 3), (40, 4, 3)])
def test_networks_have_the_parameters_that_paper_and_pencil_give(
    depth: int, width: int, channels: int, norm: Norm, downsample: Downsample
) -> None:
    with torch.device("meta"):
        network = WideResNet(depth=depth, width=width, norm=norm, downsample=downsample).build(channels)
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


@pytest.mark.parametrize("downsample", ["stride", "avg-pool"])
@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 15, 28, 64])
def test_any_image_becomes_one_feature_vector(
    size: int, channels: int, norm: Norm, stem_stride: Literal[1, 2], downsample: Downsample
) -> None:
    table = WideResNet(depth=10, width=1, norm=norm, stem_stride=stem_stride, downsample=downsample)
    network = table.build(channels)
    maps = []
    network.blocks.register_forward_hook(lambda _, __, output: maps.append(output.shape))
    features = network(torch.zeros(2, channels, size, size))
    assert features.shape == (2, table.dim) == (2, network.dim)
    side = math.ceil(size / (4 * stem_stride))
    assert maps == [(2, 64, side, side)]


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("downsample", ["stride", "avg-pool"])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_features_are_the_written_out_network(
    norm: Norm, downsample: Downsample, stem_stride: Literal[1, 2], generator: torch.Generator
) -> None:
    """Pre-activation blocks around a shortcut, the stride in the second convolution, then norm, LeakyReLU and the mean.

    Pooled are a block's input, so that both of its ways start from it, and the activated stem.
    """
    network = WideResNet(depth=16, width=1, norm=norm, downsample=downsample, stem_stride=stem_stride).build(3).eval()
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

    def halved(x: torch.Tensor) -> torch.Tensor:
        return (x[..., 0::2, 0::2] + x[..., 0::2, 1::2] + x[..., 1::2, 0::2] + x[..., 1::2, 1::2]) / 4

    pools = downsample == "avg-pool"
    images = torch.rand(2, 3, 16, 16, generator=generator) - 0.5
    x = conv2d(images, "stem", 1 if pools else stem_stride)
    if pools and stem_stride == 2:
        x = halved(torch.where(x > 0, x, 0.2 * x))
    for i, halves in enumerate((False, False, True, False, True, False)):
        at, stride = f"blocks.{i}", 2 if halves and not pools else 1
        x = halved(x) if halves and pools else x
        h = conv2d(normed(x, f"{at}.norm1"), f"{at}.conv1")
        h = conv2d(normed(h, f"{at}.norm2"), f"{at}.conv2", stride)
        x = h + (conv2d(x, f"{at}.shortcut", stride) if halves else x)
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


def weight_of_phases(downsample: Downsample, stem_stride: Literal[1, 2]) -> list[float]:
    """Mean size of an untrained network's gradient at pixels of even and odd rows and columns, in units of their mean."""
    model = Model(WideResNet(depth=10, width=1, init="kaiming", downsample=downsample, stem_stride=stem_stride))
    sizes = torch.zeros(32, 32)
    for seed in range(16):
        images = torch.rand(32, 1, 32, 32, generator=torch.Generator().manual_seed(seed)).mul(2).sub(1).requires_grad_()
        (gradient,) = torch.autograd.grad(model.build(2, 1, seed).features(images).square().sum(), images)
        sizes += gradient.abs().mean((0, 1))
    inner = sizes[8:24, 8:24]  # the border has fewer windows
    phases = torch.stack([inner[row::2, column::2].mean() for row in (0, 1) for column in (0, 1)])
    return (phases / phases.mean()).tolist()


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_pooling_weighs_all_pixels_alike_and_a_stride_does_not(stem_stride: Literal[1, 2]) -> None:
    """A kernel of 3 at stride 2 reads some pixels once, some twice, some four times: chains draw its pattern."""
    assert weight_of_phases("avg-pool", stem_stride) == pytest.approx([1.0] * 4, abs=0.02)
    uneven = weight_of_phases("stride", stem_stride)
    assert max(uneven) > 1.3 * min(uneven)


def spectral_network(**table: Any) -> WideResNetFeatures:
    torch.manual_seed(0)
    return WideResNet(depth=10, width=2, spectral_norm=True, **table).build(3)


def largest_singular_values(network: nn.Module) -> list[float]:
    matrices = [layer.weight.detach().flatten(1).numpy() for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    return [float(np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[0]) for matrix in matrices]


@pytest.mark.parametrize("init", ["torch", "kaiming"])
def test_spectral_norm_brings_the_largest_singular_value_of_every_weight_to_1(
    init: Literal["torch", "kaiming"], generator: torch.Generator
) -> None:
    network = spectral_network(init=init)
    images = torch.rand(1, 3, 8, 8, generator=generator)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for _ in range(200):  # each forward pass of a training is a power iteration
        network(images)
    values = largest_singular_values(network.eval())
    assert len(values) == 1 + 3 * 3
    assert values == pytest.approx([1.0] * 10, abs=1e-3)
    assert all(map(torch.equal, network.parameters(), before))  # what is learnt is the weight before its division


def test_spectral_norm_adds_no_parameter() -> None:
    counts = [sum(p.numel() for p in WideResNet(depth=10, width=2, spectral_norm=on).build(3).parameters()) for on in (False, True)]
    assert counts == [expected_parameters(10, 2, 3, "none")] * 2


def test_spectral_norm_follows_a_weight_that_training_changes(generator: torch.Generator) -> None:
    network, images = spectral_network(), torch.rand(1, 3, 8, 8, generator=generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(7.0).add_(torch.randn(parameter.shape, generator=generator))
    assert max(largest_singular_values(network.eval())) > 1.5
    network.train()
    for _ in range(200):
        network(images)
    assert largest_singular_values(network.eval()) == pytest.approx([1.0] * 10, abs=1e-3)


def test_evaluation_does_not_move_the_spectral_norm(generator: torch.Generator) -> None:
    network, images = spectral_network(), torch.rand(2, 3, 8, 8, generator=generator)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.eval()
    assert torch.equal(network(images), network(images))
    with frozen(network.train()):
        network(images)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    network(images)
    assert not all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_spectral_norm_survives_a_state_dict(generator: torch.Generator) -> None:
    network, images = spectral_network(), torch.rand(2, 3, 8, 8, generator=generator)
    for _ in range(3):
        network(images)
    torch.manual_seed(1)
    other = WideResNet(depth=10, width=2, spectral_norm=True).build(3)
    assert not torch.equal(other.eval()(images), network.eval()(images))
    other.load_state_dict({key: tensor.clone() for key, tensor in network.state_dict().items()})
    assert torch.equal(other(images), network(images))
    assert torch.equal(other.train()(images), network.train()(images))  # and goes on alike
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in network.state_dict().items())


def test_a_spectral_networks_weights_are_a_function_of_the_seed() -> None:
    model = Model(WideResNet(depth=10, width=1, spectral_norm=True))
    before = torch.get_rng_state()
    first, again, other = (model.build(2, 1, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    vectors = [key for key in first if key.endswith("._u")]
    assert len(vectors) == 1 + 3 * 3 - 1  # of width 1 the first block needs no convolution around it
    assert not any(torch.equal(first[key], other[key]) for key in vectors)


def test_pooling_leaves_out_no_pixel_of_odd_images(generator: torch.Generator) -> None:
    network = WideResNet(depth=10, width=1, stem_stride=2, downsample="avg-pool", init="kaiming").build(1)
    images = torch.rand(1, 1, 15, 15, generator=generator).requires_grad_()
    network(images).sum().backward()
    assert images.grad is not None and images.grad[0, 0].abs().min() > 0


def test_a_wide_stem_changes_the_stem_and_its_first_block_alone() -> None:
    with torch.device("meta"):
        narrow, wide = (WideResNet(depth=16, width=2, stem_width=stem_width).build(3).state_dict() for stem_width in (16, 48))
    changed = {name for name in narrow if narrow[name].shape != wide[name].shape}
    assert changed == {"stem.weight", "stem.bias", "blocks.0.conv1.weight", "blocks.0.shortcut.weight"}
    assert wide["stem.weight"].shape == (48, 3, 3, 3)


def test_group_norm_is_done_in_float32_under_autocast_and_in_float64_in_a_model_of_that_kind(generator: torch.Generator) -> None:
    norm, torchs = GroupNorm(8, 16), nn.GroupNorm(8, 16)
    x = torch.randn(4, 16, 5, 5, generator=generator)
    rounded = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(rounded), torchs(rounded.float()).bfloat16())
    assert torch.equal(norm(x), torchs(x))
    assert torch.equal(norm.double()(x.double()), torchs.double()(x.double()))
