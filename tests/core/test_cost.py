"""Costs against those worked out by hand."""

import pytest
import torch

from gmmcli.core.cost import Cost, operations_a_second
from gmmcli.core.wide_resnet import WideResNet

CPU = torch.device("cpu")


def test_parameters_are_those_of_the_network() -> None:
    for backbone in (WideResNet(depth=10, width=1), WideResNet(depth=16, width=2, norm="batch")):
        assert Cost.of(backbone, (3, 32, 32)).parameters == sum(p.numel() for p in backbone.build(3).parameters())


def test_operations_grow_with_the_pixels_and_bytes_with_them() -> None:
    small, large = (Cost.of(WideResNet(depth=10, width=1), (3, edge, edge)) for edge in (16, 32))
    assert large.operations == 4 * small.operations
    assert large.kept == pytest.approx(4 * small.kept, rel=0.01)  # but for the pooled features
    assert large.kept > 4 * 16 * 32 * 32


def test_a_published_network_has_the_published_cost() -> None:
    """WRN-28-10: 36.5 million parameters (Zagoruyko and Komodakis 2016, Table 4), about 5.2 billion multiplications."""
    cost = Cost.of(WideResNet(depth=28, width=10), (3, 32, 32))
    assert cost.parameters == pytest.approx(36.5e6, rel=0.01)
    assert 2 * 5.2e9 < cost.operations < 2 * 6.1e9


def test_a_network_with_batch_norm_is_counted_where_a_single_pixel_is_left() -> None:
    small = WideResNet(depth=10, width=1, norm="batch", stem_stride=2, downsample="avg-pool")
    assert Cost.of(small, (3, 8, 8)).operations > 0


def test_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    Cost.of(WideResNet(depth=10, width=1), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_speed_of_products_is_measured() -> None:
    assert 1e8 < operations_a_second(CPU, "fp32") < 1e15
