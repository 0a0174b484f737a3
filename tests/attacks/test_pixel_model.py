import numpy as np
import pytest
import torch
from linear import linear, tangled

from gmmcli.attacks.attack import Norm
from gmmcli.attacks.pixel_model import distances


def test_pixels_become_the_model_range_and_nothing_else_happens_to_them() -> None:
    model, pixels, _ = tangled(5)
    assert torch.equal(model(pixels[:8]), model.model(2 * pixels[:8] - 1))  # eight are not filled up
    edges = linear(torch.eye(3))(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3))
    assert edges.tolist() == [[-1.0, 0.0, 1.0]]


@pytest.mark.parametrize("n", [0, 1, 8, 9, 12, 16, 17])
def test_batches_come_in_few_sizes_and_an_image_and_its_gradient_know_nothing_of_it(n: int) -> None:
    model, pixels, _ = tangled(5, n=17)
    expected = torch.autograd.functional.jacobian(lambda x: model.model(2 * x - 1).sum(0), pixels[:n]) if n else None
    seen: list[int] = []
    model.model.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    assert model(pixels[:n]).shape == (n, 5)
    assert seen == [{0: 4, 1: 4, 9: 16, 12: 16, 17: 24}.get(n, n)]
    torch.testing.assert_close(model(pixels[:n]), torch.cat([model(image[None]) for image in pixels])[:n])
    if n:
        torch.testing.assert_close(torch.autograd.functional.jacobian(lambda x: model(x).sum(0), pixels[:n]), expected)


def test_logits_may_be_divided_and_computed_in_float64() -> None:
    model, pixels, _ = tangled(5)
    plain = model(pixels)
    model.scale = 8.0
    assert torch.equal(model(pixels), plain / 8)
    model.dtype = torch.float64
    model.double()
    assert model(pixels).dtype == torch.float64
    torch.testing.assert_close(model(pixels), plain.double() / 8, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2)])
def test_distances_are_numpys_norms(norm: Norm, order: float) -> None:
    a, b = torch.rand(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    expected = [np.linalg.norm((x - y).numpy().ravel(), order) for x, y in zip(a, b, strict=True)]
    assert distances(a, b, norm).tolist() == pytest.approx(expected)
