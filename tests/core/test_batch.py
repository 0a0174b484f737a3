"""How many images at a time."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from gmmcli.core.batch import LEAST, MOST, WORKING_SET, batch_size
from gmmcli.core.classifier import frozen
from gmmcli.core.model import Model
from gmmcli.core.wide_resnet import WideResNet


class Squares(nn.Module):
    """Keeps ``times`` copies of each image for its backward pass, and something of a size of its own."""

    def __init__(self, times: int, own: int) -> None:
        super().__init__()
        self.times, self.own = times, own
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        for _ in range(self.times):
            images = images.sigmoid()  # keeps its result
        return images * images.mean() * torch.zeros(self.own, device=images.device).exp().sum()


def images(edge: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(3, 1, edge, edge, dtype=dtype)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("times", "edge", "dtype"), [(4, 512, torch.float32), (8, 512, torch.float32), (4, 512, torch.float64)])
def test_the_activations_of_a_batch_fill_the_working_set_of_a_cpu(times: int, edge: int, dtype: torch.dtype) -> None:
    model = Squares(times, own=5_000_000)
    bytes_of_one = times * edge * edge * dtype.itemsize
    found = batch_size(model, images(edge, dtype))
    assert WORKING_SET // bytes_of_one >= found > 0.7 * (WORKING_SET // bytes_of_one)  # the product keeps a copy more
    assert model.sizes == [1, 2]


@pytest.mark.usefixtures("one_thread")
def test_it_is_bounded_at_both_ends() -> None:
    assert batch_size(Squares(1, 1), images(1)) == MOST
    assert batch_size(Squares(9, 1), images(2048)) == LEAST


def test_each_thread_has_a_working_set_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(batch_size(Squares(4, 1), images(512)))
    assert found[0] > LEAST and found[1] // found[0] == 3


def test_the_model_is_asked_and_left_as_it_was() -> None:
    model = Model(WideResNet(depth=10, width=1, norm="batch")).build(4, 3, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with frozen(model), torch.no_grad():
        size = batch_size(model, torch.zeros(0, 3, 32, 32))
        assert not torch.is_grad_enabled()
    assert LEAST < size < MOST
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("free", "expected"), [(2**30, 127), (2**22, 1), (2**40, MOST)])
def test_on_a_gpu_half_of_what_is_free_is_filled(free: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the figures that torch gives of a GPU: there is none here."""
    monkeypatch.setattr("gmmcli.core.batch._kept", lambda model, images: len(images) * 2**22 + 12345)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - 2**20, 2**50))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**12)

    with FakeTensorMode():
        like = torch.empty(0, 1, 8, 8, device="cuda")
    assert batch_size(nn.Identity(), like) == expected
