import pytest
import torch
from linear import block_images, blocks, linear, radii, tangled
from scipy.optimize import brentq
from torch import Tensor

from gmmcli.attacks.carlini import Aim, CarliniWagner
from gmmcli.attacks.pixel_model import PixelModel, distances


def smallest_within_the_range(model: PixelModel, pixels: Tensor, labels: Tensor) -> list[float]:
    """The L2 distance from each image in [0, 1] to the boundary of a linear model of two classes, within [0, 1].

    The nearest point is ``clip(x + s w, 0, 1)``, w the slope of the gap, at the s that makes up for the gap: a root in one dimension.
    """
    weight = model.model.head.get_parameter("weight").double()
    logits, distance = model(pixels).double(), []
    for x, z, y in zip(pixels.flatten(1).double(), logits, labels.tolist(), strict=True):
        slope, gap = 2 * (weight[1 - y] - weight[y]), z[y] - z[1 - y]

        def left(s: float, x: Tensor = x, slope: Tensor = slope, gap: Tensor = gap) -> float:
            return float(slope @ ((x + s * slope).clamp(0, 1) - x) - gap)

        distance.append(float(((x + brentq(left, 0, 1e3) * slope).clamp(0, 1) - x).norm()))
    return distance


def sloped(black_and_white: bool) -> tuple[PixelModel, Tensor, Tensor]:
    """Two classes apart in every pixel, and images none of which is far from the boundary."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 64, generator=rng)
    pixels = torch.rand(4, 1, 8, 8, generator=rng)
    pixels = pixels.round() if black_and_white else 0.3 + 0.4 * pixels
    centre = weight @ (2 * pixels.mean(0).flatten() - 1)
    model = linear(weight, -centre)
    return model, pixels, model(pixels).argmax(1)


@pytest.mark.parametrize(("n_classes", "shift"), [(2, 0.0), (3, -1000.0), (4, 1000.0)])
def test_on_a_linear_model_the_change_is_the_distance_to_the_boundary_whatever_the_sign_of_the_logits(n_classes: int, shift: float) -> None:
    model = blocks(n_classes, shift=shift)
    pixels, labels = block_images(n_classes)
    assert shift >= 0 or bool((model(pixels) < 0).all())
    success, found = CarliniWagner(steps=40, searches=7)(model, pixels, labels)
    assert success.all()
    norms, true = distances(found, pixels, "l2"), radii(model, pixels, labels, "l2")
    assert norms.tolist() == pytest.approx(true.tolist(), rel=0.05)
    assert (norms > true * (1 - 1e-3)).all()


@pytest.mark.parametrize("black_and_white", [True, False])
def test_black_and_white_pixels_move_as_grey_ones_do(black_and_white: bool) -> None:
    model, pixels, labels = sloped(black_and_white)
    success, found = CarliniWagner(steps=60, searches=7)(model, pixels, labels)
    assert success.all()
    assert distances(found, pixels, "l2").tolist() == pytest.approx(smallest_within_the_range(model, pixels, labels), rel=0.05)
    assert found.min() >= 0 and found.max() <= 1


def test_a_targeted_attack_reaches_its_class_and_that_costs_no_less_than_taking_any() -> None:
    model, pixels, labels = tangled(4, n=8)
    aims: dict[Aim, Tensor] = {"next": (labels + 1) % 4, "least-likely": model(pixels).argmin(1)}
    cheapest = distances(CarliniWagner(steps=40, searches=8, learning_rate=0.03)(model, pixels, labels)[1], pixels, "l2")
    for aim, aimed in aims.items():
        attack = CarliniWagner(aim, steps=40, searches=8, learning_rate=0.03)
        success, found = attack(model, pixels, labels)
        assert torch.equal(attack.targets(model, pixels, labels), aimed)
        assert success.all()
        assert torch.equal(model(found).argmax(1), aimed)
        assert found.min() >= 0 and found.max() <= 1
        costs = distances(found, pixels, "l2")
        assert (costs >= 0.9 * cheapest).all()
        assert costs.mean() > cheapest.mean()


def test_the_least_likely_class_is_never_the_own_one() -> None:
    """Not even where the images are classified wrongly."""
    model, pixels, _ = tangled(3)
    worst = model(pixels).argmin(1)
    assert (CarliniWagner("least-likely").targets(model, pixels, worst) != worst).all()


def test_success_is_misclassification_of_what_is_returned_and_the_rest_comes_back_clean() -> None:
    """Three images near the boundary, three that so few steps cannot take there."""
    model = blocks(2)
    pixels, labels = block_images(2, (0.01, 0.4, 0.01, 0.4, 0.01, 0.4))
    success, found = CarliniWagner(steps=3, searches=9)(model, pixels, labels)
    assert success.tolist() == [True, False] * 3
    assert torch.equal(success, model(found).argmax(1) != labels)
    assert torch.equal(found[~success], pixels[~success])


def test_a_model_that_cannot_be_deceived_is_not() -> None:
    model = linear(torch.zeros(3, 64), torch.tensor([1.0, 0.0, 0.0]))
    pixels, labels = block_images(3)
    success, found = CarliniWagner(steps=5)(model, pixels, torch.zeros_like(labels))
    assert not success.any()
    assert torch.equal(found, pixels)


def test_a_tie_is_no_deception() -> None:
    model = linear(torch.zeros(2, 64))
    pixels, labels = block_images(2)
    success, _ = CarliniWagner(steps=2)(model, pixels, torch.zeros_like(labels))
    assert not success.any()


def test_each_image_has_its_own_c() -> None:
    """Ten times as far, about ten times c: together and alone the outcome is the same."""
    model = blocks(2)
    pixels, labels = block_images(2, (0.02, 0.2))
    together = CarliniWagner(steps=10)(model, pixels, labels)[1]
    alone = torch.cat([CarliniWagner(steps=10)(model, x[None], y[None])[1] for x, y in zip(pixels, labels, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_search_finds_c_whatever_the_scale_of_the_logits(scale: float) -> None:
    model = blocks(3, scale=scale)
    pixels, labels = block_images(3)
    success, found = CarliniWagner(steps=30, searches=10)(model, pixels, labels)
    assert success.all()
    assert distances(found, pixels, "l2").tolist() == pytest.approx(radii(model, pixels, labels, "l2").tolist(), rel=0.05)


def test_more_searches_never_find_more_change() -> None:
    model, pixels, labels = tangled(4, n=8)
    norms = []
    for searches in (1, 3, 6):
        success, found = CarliniWagner(steps=15, searches=searches)(model, pixels, labels)
        norms.append(torch.where(success, distances(found, pixels, "l2"), float("inf")))
    assert (norms[2] <= norms[1]).all() and (norms[1] <= norms[0]).all()
    assert (norms[2] < norms[0]).any()


def test_images_are_taken_in_chunks_and_none_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels, labels = tangled(3, n=5)
    whole = CarliniWagner(steps=5)(model, pixels, labels)
    monkeypatch.setattr(PixelModel, "at_a_time", lambda self, images: 2)
    parts = CarliniWagner(steps=5)(model, pixels, labels)
    assert torch.equal(parts[0], whole[0])
    torch.testing.assert_close(parts[1], whole[1], rtol=0, atol=1e-4)
    success, found = CarliniWagner()(model, pixels[:0], labels[:0])
    assert (success.shape, found.shape) == ((0,), (0, 1, 8, 8))


def test_nothing_is_random_and_the_model_is_left_as_it_was() -> None:
    model, pixels, labels = tangled(3, n=5)
    before = [parameter.clone() for parameter in model.parameters()]
    state, clean = torch.get_rng_state(), pixels.clone()
    first, again = (CarliniWagner(steps=5)(model, pixels, labels)[1] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, clean)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
