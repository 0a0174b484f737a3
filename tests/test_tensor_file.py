"""Files as the safetensors library writes them, from tensors that come whole or in pieces."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gmmcli.tensor_file import write_tensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


class InThrees:
    """A tensor of which three rows are read at a time."""

    def __init__(self, whole: torch.Tensor) -> None:
        self.whole, self.shape, self.dtype = whole, whole.shape, whole.dtype

    def pieces(self) -> Iterator[torch.Tensor]:
        return iter(self.whole.split(3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_a_file_is_byte_for_byte_that_of_the_library(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensors = {name: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(1)).to(dtype) for name in ("b", "a", "ä.ü")}
    for metadata in ({}, {"card": '{"a": "ü"}\n'}):
        digest = write_tensors(tmp_path / "ours", tensors, metadata)
        safetensors.torch.save_file(tensors, tmp_path / "theirs", metadata or None)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
        assert digest == sha256((tmp_path / "ours").read_bytes()).hexdigest()


def test_no_tensors_at_all_are_a_file_too(tmp_path: Path) -> None:
    write_tensors(tmp_path / "none", {}, {})
    assert safetensors.torch.load_file(tmp_path / "none") == {}


def test_tensors_of_several_sizes_are_aligned(tmp_path: Path) -> None:
    tensors = {"byte": torch.ones(3, dtype=torch.uint8), "half": torch.ones(1, dtype=torch.float16), "double": torch.ones(2).double()}
    write_tensors(tmp_path / "ours", tensors, {})
    safetensors.torch.save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_tensor_in_pieces_is_written_as_the_whole_one(tmp_path: Path) -> None:
    whole = torch.arange(80, dtype=torch.float32).reshape(10, 2, 4)
    digests = [write_tensors(tmp_path / "file", {"x": tensor, "y": torch.ones(1)}, {}) for tensor in (whole, InThrees(whole))]
    assert digests[0] == digests[1]
    assert torch.equal(safetensors.torch.load_file(tmp_path / "file")["x"], whole)


def test_any_layout_is_written_by_value(tmp_path: Path) -> None:
    weight = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last).requires_grad_()
    write_tensors(tmp_path / "file", {"w": weight, "t": weight.transpose(1, 3)}, {})
    back = safetensors.torch.load_file(tmp_path / "file")
    assert torch.equal(back["w"], weight)
    assert torch.equal(back["t"], weight.transpose(1, 3))
