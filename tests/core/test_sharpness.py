"""The way uphill in closed form, on quadratics, and nothing left of it afterwards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gmmcli.core.sharpness import ascended

CURVATURES = [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[0.5, -3.0]])]
START = [torch.tensor([1.0, -2.0, 0.5]), torch.tensor([[3.0, 1.0]])]


class Quadratic(nn.Module):
    """``1/2 sum a w^2`` over two parameters: the gradient at any w is ``a w``. A third has no part in it."""

    def __init__(self) -> None:
        super().__init__()
        self.ws = nn.ParameterList([start.clone() for start in START])
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self) -> Tensor:
        return torch.stack([(a * w.square()).sum() / 2 for a, w in zip(CURVATURES, self.ws, strict=True)]).sum()

    def climb(self) -> None:
        self.zero_grad()
        torch.autograd.backward(self())


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_the_perturbation_and_the_gradient_there_are_those_by_hand(rho: float, adaptive: bool) -> None:
    model = Quadratic()
    model.climb()
    a, w = flat(CURVATURES), flat(START)
    scale = w.abs() if adaptive else torch.ones_like(w)
    uphill = w + rho * scale**2 * (a * w) / (scale * a * w).norm()
    with ascended(model, rho, adaptive):
        torch.testing.assert_close(flat(list(model.ws)), uphill)
        assert model.idle.tolist() == [1, 1]
        model.climb()
    gradients = [w.grad for w in model.ws if w.grad is not None]
    torch.testing.assert_close(flat(gradients), a * uphill)
    assert all(torch.equal(w, start) for w, start in zip(model.ws, START, strict=True))  # to the bit


@given(rho=st.floats(1e-3, 10), factor=st.floats(0.1, 10))
def test_the_plain_step_has_the_length_rho_and_the_adaptive_one_grows_with_the_weights(rho: float, factor: float) -> None:
    def lengths(scale: float, adaptive: bool) -> float:
        model = Quadratic()
        with torch.no_grad():
            for w in model.ws:
                w.mul_(scale)
        before = flat(list(model.ws))
        model.climb()
        with ascended(model, rho, adaptive):
            return float((flat(list(model.ws)) - before).norm())

    assert lengths(factor, False) == pytest.approx(rho, rel=1e-3)
    assert lengths(factor, True) == pytest.approx(factor * lengths(1.0, True), rel=1e-3)  # invariant to the scale of weights


def test_a_gradient_of_zero_leads_nowhere() -> None:
    model = Quadratic()
    for w in model.ws:
        w.grad = torch.zeros_like(w)
    with ascended(model, 1.0):
        assert all(torch.equal(w, start) for w, start in zip(model.ws, START, strict=True))


def test_weights_come_back_from_a_gradient_of_nan_and_from_an_error() -> None:
    model = Quadratic()
    for w in model.ws:
        w.grad = torch.full_like(w, torch.nan)
    with pytest.raises(ZeroDivisionError), ascended(model, 1.0):
        assert bool(model.ws[0].isnan().all())
        _ = 1 / 0
    assert all(torch.equal(w, start) for w, start in zip(model.ws, START, strict=True))


def test_statistics_of_a_norm_do_not_move_uphill() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    images = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(model(images).square().sum())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert int(before["1.num_batches_tracked"]) == 1
    with ascended(model, 0.5):
        torch.autograd.backward(model(images).square().sum())
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
