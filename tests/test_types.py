import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmcli.types import to_bytes, to_model

BYTES = torch.arange(256, dtype=torch.uint8)


def test_every_byte_survives_the_round_trip() -> None:
    assert torch.equal(to_bytes(to_model(BYTES)), BYTES)


def test_bytes_become_an_even_grid_of_the_model_range() -> None:
    images = to_model(BYTES)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.double(), torch.linspace(-1, 1, 256, dtype=torch.float64), atol=1e-6, rtol=0)
    assert images.min() >= -1 and images.max() <= 1


@given(st.floats(-1, 1, width=32))
@settings(deadline=None, derandomize=True)
def test_bytes_are_the_nearest_to_a_value(value: float) -> None:
    there_and_back = to_model(to_bytes(torch.tensor([value])))
    assert abs(float(there_and_back) - value) <= 1 / 255 + 1e-6


@pytest.mark.parametrize(("value", "byte"), [(-7.0, 0), (-1.0, 0), (1.0, 255), (1.001, 255), (7.0, 255)])
def test_bytes_beyond_the_model_range_are_clamped(value: float, byte: int) -> None:
    assert to_bytes(torch.tensor([value])).item() == byte


def test_conversions_leave_their_argument_alone() -> None:
    images, raw = torch.linspace(-1, 1, 7), BYTES.clone()
    kept = images.clone()
    to_bytes(images)
    to_model(raw)
    assert torch.equal(images, kept) and torch.equal(raw, BYTES)
