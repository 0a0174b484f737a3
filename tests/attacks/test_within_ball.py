from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from linear import block_images, blocks, linear, radii, tangled
from torch import Tensor, nn
from torch.nn import functional as F

from gmmcli.attacks import algorithms, within_ball
from gmmcli.attacks.adversary import Adversary
from gmmcli.attacks.attack import Attack, Norm
from gmmcli.attacks.losses import LOSSES, median_gap
from gmmcli.attacks.pixel_model import PixelModel, distances, pixel_logits
from gmmcli.attacks.within_ball import over_eps, run
from gmmcli.core.classifier import Classifier
from gmmcli.errors import GmmcError

KINDS = [
    Attack("fgsm", "margin"),
    *(Attack(kind, "margin", norm, steps) for norm in ("linf", "l2") for kind, steps in (("pgd", 5), ("apgd", 5), ("square", 10))),
]
EVERY_KIND = pytest.mark.parametrize("attack", KINDS, ids=lambda attack: f"{attack.kind}-{attack.norm}")


class Wave(nn.Module):
    """Rises and falls six times within a ball of 0.1: steps overshoot, and starts decide."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(100 * x.flatten(1).mean(1, keepdim=True))


def wavy(n: int = 40) -> tuple[PixelModel, Tensor, Tensor]:
    """A model that has the second class on the narrow crests of a wave, images, and what it takes them for."""
    head = nn.Linear(1, 2)
    head.weight.data.copy_(torch.tensor([[-1.0], [1.0]]))
    head.bias.data.copy_(torch.tensor([0.8, -0.8]))
    model = PixelModel(Classifier(Wave(), head).eval().requires_grad_(False))
    pixels = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return model, pixels, model(pixels).argmax(1)


def subset(some: Tensor, others: Tensor) -> bool:
    return not bool((some & ~others).any())


EXACT = [
    Attack("pgd", "margin", steps=10),
    Attack("pgd", "margin", "l2", steps=20, step_size=0.25),
    Attack("pgd", "ce", steps=10),
    Attack("pgd", "ce-scaled", steps=10),
    Attack("pgd", "dlr", steps=10),
    Attack("pgd", "dlr-targeted", steps=10),
    Attack("apgd", "margin", steps=20),
    Attack("apgd", "margin", "l2", steps=20),
    Attack("apgd", "dlr-targeted", steps=20),
    Attack("fgsm", "margin"),
]


@pytest.mark.parametrize(
    ("attack", "n_classes"), [(attack, k) for attack in EXACT for k in (2, 3, 4) if k >= LOSSES[attack.loss].n_classes], ids=str
)
def test_on_a_linear_model_an_image_falls_just_above_its_distance_and_never_below(attack: Attack, n_classes: int) -> None:
    model = blocks(n_classes)
    pixels, labels = block_images(n_classes)
    true = radii(model, pixels, labels, attack.norm)
    near, far = float(true.min()), float(true.max())
    fell, _, _ = over_eps(attack, model, pixels, labels, [share * radius for radius in (near, far) for share in (0.995, 1.005)])
    assert fell.tolist() == pytest.approx((1.005 * true).tolist(), rel=1e-4)
    assert far == pytest.approx(2 * near, rel=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_finds_within_some_factor_what_gradients_find_exactly(norm: Norm) -> None:
    model = blocks(3)
    pixels, labels = block_images(3)
    true = radii(model, pixels, labels, norm)
    eps = [0.99 * float(true.min()), 6 * float(true.max())]
    fell, _, _ = over_eps(Attack("square", "margin", norm, steps=100), model, pixels, labels, eps)
    assert fell.tolist() == [eps[1]] * 4


def test_a_saturated_softmax_blinds_cross_entropy_and_no_other_loss() -> None:
    model = blocks(4, scale=1e4)
    pixels, labels = block_images(4)
    eps = 1.2 * float(radii(model, pixels, labels, "linf").max())
    masked = run(Attack("pgd", "ce"), model, pixels, labels, eps)
    assert masked.unbroken.all()
    assert masked.zero_gradients == masked.gradients == 4 * 40
    for loss in ("margin", "dlr", "dlr-targeted", "ce-scaled"):
        seeing = run(Attack("pgd", loss), model, pixels, labels, eps)
        assert not seeing.unbroken.any(), loss
        assert seeing.zero_gradients == 0, loss


def test_in_float64_cross_entropy_sees_further() -> None:
    """At these gaps the softmax of float32 is exactly 0 or 1, that of float64 is not."""
    model = blocks(3, scale=200.0)
    pixels, labels = block_images(3, (0.06, 0.06, 0.06))
    eps = 3 * float(radii(model, pixels, labels, "linf").max())
    single = run(Attack("pgd", "ce"), model, pixels, labels, eps)
    double = run(Attack("pgd", "ce"), PixelModel(model.model.double(), torch.float64), pixels.double(), labels, eps)
    assert (single.unbroken.all(), single.zero_gradients) == (True, single.gradients)
    assert (double.unbroken.any(), double.zero_gradients) == (False, 0)


@pytest.mark.parametrize("kind", ["pgd", "apgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_small_gradient_is_a_direction_as_good_as_any(kind: str, norm: Norm) -> None:
    """A gap of 50: the gradient of cross-entropy is some 1e-20 and not 0, and the books say so."""
    model = blocks(2, scale=50 / (2 * 16 * 0.06))
    pixels, labels = block_images(2, (0.06, 0.06))
    outcome = run(Attack(kind, "ce", norm), model, pixels, labels, 3 * float(radii(model, pixels, labels, norm).max()))
    assert outcome.zero_gradients == 0
    assert not outcome.unbroken.any()


def saturated(n: int = 200) -> tuple[PixelModel, Tensor, Tensor]:
    """A network whose logits are as far apart as those of Gaussians of radius 10: the gradients of cross-entropy are 1e-30 to 0."""
    model, pixels, labels = tangled(4, n=n)
    model.scale = median_gap(model(pixels)) / 100
    return model, pixels, labels


def summed_cross_entropy(model: PixelModel, x: Tensor, labels: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """The logits, and the gradient of ``weight * sum`` of the cross-entropies: 1 is the standard attack, 1 / 2N what we once climbed."""
    x = x.clone().requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(weight * F.cross_entropy(logits, labels, reduction="sum"), x)
    return logits.detach(), gradient


def projected_gradient(
    model: PixelModel, start: Tensor, pixels: Tensor, labels: Tensor, eps: float, steps: int, weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Madry et al.'s attack, written anew: which images stand, and the first misclassified image of each of the others."""
    x, found, unbroken = start, pixels.clone(), torch.ones_like(labels, dtype=torch.bool)
    for step in range(steps + 1):
        logits, gradient = summed_cross_entropy(model, x, labels, weight)
        falls = unbroken & (logits.argmax(1) != labels)
        found[falls], unbroken = x[falls], unbroken & ~falls
        if step < steps:
            x = x + 2.5 * eps / steps * gradient.sign()
            x = torch.maximum(torch.minimum(x, pixels + eps), pixels - eps).clamp(0, 1)
    return unbroken, found


def test_pgd_on_cross_entropy_climbs_the_sum_and_not_the_mean() -> None:
    model, pixels, labels = saturated()
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    outcome = run(Attack("pgd", "ce"), model, pixels, labels, 0.3)
    handle.remove()
    start = seen[1]  # the clean images are looked at before
    unbroken, found = projected_gradient(model, start, pixels, labels, 0.3, 40)
    assert torch.equal(outcome.unbroken, unbroken)
    torch.testing.assert_close(outcome.adversarial, found, rtol=0, atol=1e-6)
    weakened, _ = projected_gradient(model, start, pixels, labels, 0.3, 40, weight=1 / (2 * 200))
    assert 0 < int(unbroken.sum()) < int(weakened.sum())


def test_fgsm_on_cross_entropy_is_the_sign_of_the_sum_and_not_of_the_mean() -> None:
    model, pixels, labels = saturated()
    outcome = run(Attack("fgsm", "ce"), model, pixels, labels, 0.3)
    left = []
    for weight in (1.0, 1 / (2 * 200)):
        gradient = summed_cross_entropy(model, pixels, labels, weight)[1]
        stepped = (pixels + 0.3 * gradient.sign()).clamp(0, 1)
        left.append(model(stepped).argmax(1) == labels)
    assert torch.equal(outcome.unbroken, left[0])
    assert outcome.zero_gradients < int((gradient.flatten(1) == 0).all(1).sum())
    assert 0 < int(left[0].sum()) < int(left[1].sum())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads divide a matrix product by its number of rows, and round it accordingly."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "attack",
    [
        Attack("fgsm", "ce"),
        Attack("pgd", "ce"),
        Attack("pgd", "ce", "l2"),
        Attack("pgd", "ce", restarts=2, steps=5),
        Attack("pgd", "mmc-targeted", steps=5),
    ],
    ids=str,
)
def test_an_images_outcome_does_not_depend_on_the_size_of_its_batch(
    attack: Attack, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pixels, labels = saturated()
    eps = 0.3 if attack.norm == "linf" else 1.5
    whole = run(attack, model, pixels, labels, eps)
    monkeypatch.setattr(within_ball, "CHUNK", 10)
    parts = run(attack, model, pixels, labels, eps)
    assert torch.equal(parts.unbroken, whole.unbroken)
    torch.testing.assert_close(parts.adversarial, whole.adversarial, rtol=0, atol=1e-6)
    assert (parts.gradients, parts.zero_gradients) == (whole.gradients, whole.zero_gradients)
    assert 0 < int(whole.unbroken.sum()) < 200


def test_cross_entropy_of_scaled_logits_does_not_know_their_scale() -> None:
    model, pixels, labels = tangled(4)
    expected = run(Attack("pgd", "ce-scaled", steps=5), model, pixels, labels, 0.1)
    model.scale = 2.0**-20
    found = run(Attack("pgd", "ce-scaled", steps=5), model, pixels, labels, 0.1)
    assert torch.equal(found.adversarial, expected.adversarial)
    assert 0 < int(found.unbroken.sum()) < 12


@pytest.mark.parametrize("loss", [name for name in LOSSES if LOSSES[name].n_classes <= 3])
def test_a_model_without_gradients_stands_and_the_books_say_why(loss: str) -> None:
    model = linear(torch.zeros(3, 64))
    pixels, labels = block_images(3)
    outcome = run(Attack("pgd", loss, steps=4), model, pixels, torch.zeros_like(labels), 0.1)
    assert outcome.unbroken.all()
    assert outcome.zero_gradients == outcome.gradients > 0


@EVERY_KIND
@pytest.mark.parametrize("eps", [0.05, 0.4])
def test_what_is_found_lies_in_ball_and_range_and_is_misclassified(attack: Attack, eps: float) -> None:
    model, pixels, labels = tangled(4)
    outcome = run(attack, model, pixels, labels, eps * (1 if attack.norm == "linf" else 5))
    change = (outcome.adversarial - pixels).flatten(1).numpy().astype(np.float64)
    size = np.linalg.norm(change, ord=np.inf if attack.norm == "linf" else 2, axis=1)
    assert size.max() <= eps * (1 if attack.norm == "linf" else 5) * (1 + 1e-6) + 1e-6
    assert outcome.adversarial.min() >= 0 and outcome.adversarial.max() <= 1
    assert torch.equal(model(outcome.adversarial).argmax(1) == labels, outcome.unbroken)
    assert torch.equal(outcome.adversarial[outcome.unbroken], pixels[outcome.unbroken])
    assert not outcome.unbroken.all()


@EVERY_KIND
def test_a_larger_ball_is_no_safer(attack: Attack) -> None:
    model = blocks(3)
    pixels, labels = block_images(3, (0.01, 0.02, 0.04, 0.06, 0.08, 0.1))
    unit = float(radii(model, pixels, labels, attack.norm).max())
    eps = [0.02 * unit, 0.5 * unit, 2 * unit, 9 * unit]
    thorough = replace(attack, steps=60) if attack.kind == "square" else attack
    left = [int(run(thorough, model, pixels, labels, radius).unbroken.sum()) for radius in eps]
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (6, 0)


@EVERY_KIND
def test_eps_0_leaves_exactly_what_is_classified_rightly(attack: Attack) -> None:
    model, pixels, labels = tangled(4)
    labels[3] = (labels[3] + 1) % 4
    fell, adversarial, outcomes = over_eps(attack, model, pixels, labels, [0.0])
    assert fell.tolist() == [0.0 if i == 3 else float("inf") for i in range(12)]
    assert torch.equal(adversarial, pixels)
    assert outcomes[0].forwards == 0


@EVERY_KIND
def test_the_same_seed_gives_the_same_outcome_and_leaves_torchs_generator_alone(attack: Attack, capsys: pytest.CaptureFixture[str]) -> None:
    model, pixels, labels = wavy(12)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = run(attack, model, pixels, labels, 0.1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = run(attack, model, pixels, labels, 0.1)
    assert torch.equal(first.adversarial, again.adversarial)
    assert torch.equal(first.unbroken, again.unbroken)
    assert first[2:] == again[2:]
    assert capsys.readouterr() == ("", "")
    if attack.kind != "fgsm":
        other = run(replace(attack, seed=2), model, pixels, labels, 0.1)
        assert not torch.equal(first.adversarial, other.adversarial)


@EVERY_KIND
def test_the_model_is_left_as_it_was(attack: Attack) -> None:
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PixelModel(Classifier(features, nn.Linear(144, 3)).eval())
        pixels = torch.rand(6, 1, 8, 8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run(attack, model, pixels, pixel_logits(model, pixels).argmax(1), 0.3)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_restarts_never_hurt_and_only_standing_images_take_part() -> None:
    model, pixels, labels = wavy()
    outcomes = [run(Attack("pgd", "margin", steps=1, restarts=restarts), model, pixels, labels, 0.1) for restarts in (1, 2, 5)]
    left = [int(outcome.unbroken.sum()) for outcome in outcomes]
    assert 0 < left[2] < left[1] < left[0] < 40
    for fewer, more in pairwise(outcomes):
        assert subset(more.unbroken, fewer.unbroken)
        fallen = ~fewer.unbroken
        assert torch.equal(fewer.adversarial[fallen], more.adversarial[fallen])
    assert left[0] <= outcomes[1].forwards - outcomes[0].forwards <= 2 * left[0]


def test_leaving_broken_images_out_keeps_every_image_broken_at_some_step_and_costs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    model, pixels, labels = wavy()
    attack = Attack("pgd", "margin", steps=4, step_size=1.0)
    dropping = run(attack, model, pixels, labels, 0.1)
    throughout = run(replace(attack, throughout=True), model, pixels, labels, 0.1)
    assert subset(dropping.unbroken, throughout.unbroken)
    assert 0 < int(dropping.unbroken.sum()) < int(throughout.unbroken.sum())
    assert dropping.forwards < throughout.forwards == 40 * (4 + 1)
    assert dropping.gradients < throughout.gradients == 40 * 4


def test_where_no_step_loses_what_another_found_leaving_out_changes_nothing() -> None:
    model = blocks(3)
    pixels, labels = block_images(3, (0.02, 0.05, 0.1, 0.3, 0.4))
    eps = 1.01 * float(radii(model, pixels, labels, "linf")[2])
    dropping, throughout = (run(Attack("pgd", "margin", throughout=every), model, pixels, labels, eps) for every in (False, True))
    assert dropping.unbroken.tolist() == throughout.unbroken.tolist() == [False, False, False, True, True]
    assert dropping.forwards < throughout.forwards


@pytest.mark.parametrize(
    ("attack", "forwards", "gradients"),
    [
        (Attack("fgsm", "margin"), 1 + 1, 1),
        (Attack("pgd", "margin", steps=7), 7 + 1, 7),
        (Attack("pgd", "margin", "l2", steps=7), 7 + 1, 7),
        (Attack("pgd", "margin", steps=7, restarts=3), 3 * (7 + 1), 3 * 7),
        (Attack("pgd", "mmc-targeted", steps=7), 3 * (7 + 1), 3 * 7),
        (Attack("apgd", "margin", steps=7), 1 + 1 + 7 + 1, 1 + 7),
        (Attack("square", "margin", steps=7), 1 + 1 + 7 + 1 + 1, 0),
    ],
    ids=str,
)
def test_every_pass_of_every_image_is_counted(attack: Attack, forwards: int, gradients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = blocks(4)
    pixels, labels = block_images(4)
    eps = 0.1 * float(radii(model, pixels, labels, "linf").min())
    seen = count_rows(model)
    remembering = run(attack, model, pixels, labels, eps)
    assert sum(seen) == 4 + remembering.forwards <= 4 * (1 + forwards)  # which class to aim at is looked at besides
    forget(monkeypatch)
    seen.clear()
    outcome = run(attack, model, pixels, labels, eps)
    assert outcome.unbroken.all()
    assert (outcome.forwards, outcome.gradients) == (4 * forwards, 4 * gradients)
    assert sum(seen) == 4 * (1 + forwards)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every image pass at every step, whatever became of it before."""
    fresh = count()
    monkeypatch.setattr(Adversary, "_before", property(lambda self: [], lambda self, before: None), raising=False)
    monkeypatch.setattr(algorithms, "fingerprints", lambda images: torch.arange(1, len(images) + 1) + next(fresh) * 1000)


@EVERY_KIND
@pytest.mark.parametrize("make", [lambda n: tangled(4, n=n), wavy, lambda n: (blocks(3), *block_images(3))])
@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_what_is_remembered_changes_no_outcome(
    eps: float, make: Callable[[int], tuple[PixelModel, Tensor, Tensor]], attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against every image through the model alone at every step, whatever became of it before."""
    n, steps = (12, 20) if attack.kind == "square" else (6, 10)  # without gradients steps are cheap, and fewer of them come back
    model, pixels, labels = make(n)
    attack = replace(attack, steps=steps)
    monkeypatch.setattr(PixelModel, "at_a_time", lambda self, images: 1)
    remembering = over_eps(attack, model, pixels, labels, [eps, 3 * eps])
    forget(monkeypatch)
    plain = over_eps(attack, model, pixels, labels, [eps, 3 * eps])
    assert torch.equal(remembering[0], plain[0])
    assert torch.equal(remembering[1], plain[1])
    assert [one[3:] for one in remembering[2]] == [one[3:] for one in plain[2]]
    assert all(some.forwards <= every.forwards for some, every in zip(remembering[2], plain[2], strict=True))


@pytest.mark.parametrize(
    "attack", [Attack("apgd", "margin", steps=50), Attack("square", "margin", steps=50)], ids=lambda attack: attack.kind
)
def test_an_image_in_a_corner_of_its_ball_costs_nothing_more(attack: Attack) -> None:
    model = blocks(3)
    pixels, labels = block_images(3)
    outcome = run(attack, model, pixels, labels, 0.5 * float(radii(model, pixels, labels, "linf").min()))
    assert outcome.unbroken.all()
    assert outcome.forwards < 4 * 30


@pytest.mark.parametrize("places", [1, 7, 50])
def test_a_small_memory_forgets_and_never_confuses(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place for all images, or fewer places than images, most proposals pass again, and the outcome is that of a large memory."""
    model, pixels, labels = tangled(4)
    pixels[5] = 0.0
    labels[5] = model(pixels[5:6]).argmax()
    attack = Attack("square", "margin", steps=60)
    monkeypatch.setattr(PixelModel, "at_a_time", lambda self, images: 1)
    large = run(attack, model, pixels, labels, 0.03)
    monkeypatch.setattr(algorithms, "PLACES", places)
    small = run(attack, model, pixels, labels, 0.03)
    assert torch.equal(small.unbroken, large.unbroken) and torch.equal(small.adversarial, large.adversarial)
    assert large.forwards < small.forwards
    assert bool(large.unbroken.any())


def test_images_are_looked_at_once_before_all_radii_and_once_when_they_fall() -> None:
    model = blocks(3)
    pixels, labels = block_images(3, (0.02, 0.04, 0.3))
    seen = count_rows(model)
    fell, _, outcomes = over_eps(Attack("pgd", "margin", steps=5), model, pixels, labels, [0.005, 0.015, 0.03])
    assert fell.tolist() == [0.015, 0.03, float("inf")]
    assert sum(seen) == 3 + sum(outcome.forwards for outcome in outcomes) + 2


def count_rows(model: PixelModel) -> list[int]:
    """How many images each call of the model gets."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    return seen


@pytest.mark.parametrize(("n_classes", "aims"), [(2, 1), (4, 3), (10, 9), (12, 9)])
def test_a_targeted_loss_is_tried_on_the_nine_likeliest_classes(n_classes: int, aims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels, labels = tangled(n_classes, n=5)
    aimed: list[Tensor] = []
    towards = LOSSES["mmc-targeted"]

    def noting(logits: Tensor, own: Tensor, targets: Tensor) -> Tensor:
        aimed.append(targets)
        return towards.value(logits, own, targets)

    monkeypatch.setitem(LOSSES.builtin, "mmc-targeted", replace(towards, value=noting))
    run(Attack("pgd", "mmc-targeted", steps=1), model, pixels, labels, 1e-6)
    assert len(aimed) == aims
    for i, (z, y) in enumerate(zip(model(pixels).numpy(), labels.tolist(), strict=True)):
        assert [int(targets[i]) for targets in aimed] == [k for k in np.argsort(-z) if k != y][:aims]


def test_apgd_on_targeted_dlr_is_autoattacks() -> None:
    """The same images stand APGD-T of torchattacks, which draws its starts by itself and so is as good to an image or so."""
    import torchattacks

    model, pixels, labels = tangled(10, n=100)
    ours = run(Attack("apgd", "dlr-targeted", steps=100), model, pixels, labels, 0.05)
    theirs = torchattacks.APGDT(model, eps=0.05, steps=100, n_classes=10)(pixels, labels)
    unbroken = model(theirs).argmax(1) == labels
    assert int((ours.unbroken != unbroken).sum()) <= 1
    assert 20 < int(unbroken.sum()) < 80


def test_a_set_of_images_is_taken_in_chunks_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    model = blocks(2)
    pixels, labels = block_images(2, (0.05, 0.2, 0.05, 0.2, 0.2, 0.05, 0.05))
    eps = 2 * float(radii(model, pixels, labels, "linf").min())
    whole = run(Attack("pgd", "margin"), model, pixels, labels, eps)
    monkeypatch.setattr(within_ball, "CHUNK", 3)
    told: list[tuple[int, int]] = []
    parts = run(Attack("pgd", "margin"), model, pixels, labels, eps, lambda done, unbroken: told.append((done, unbroken)))
    assert told == [(3, 1), (6, 3), (7, 3)]
    assert torch.equal(parts.unbroken, whole.unbroken)
    torch.testing.assert_close(pixel_logits(model, pixels), model(pixels))


def test_chunks_start_apart_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels, labels = wavy(2)
    monkeypatch.setattr(within_ball, "CHUNK", 1)
    twins = pixels[:1].repeat(8, 1, 1, 1)
    found = run(Attack("pgd", "margin", steps=1), model, twins, labels[:1].repeat(8), 0.1)
    broken = found.adversarial[~found.unbroken]
    assert len(broken) > 1
    assert len(broken.unique(dim=0)) == len(broken)


@EVERY_KIND
@pytest.mark.parametrize("n", [0, 1])
def test_no_image_and_a_single_one_are_sets_too(n: int, attack: Attack) -> None:
    model, pixels, labels = tangled(3, n=1)
    outcome = run(attack, model, pixels[:n], labels[:n], 0.4)
    assert outcome.unbroken.shape == (n,)
    assert outcome.adversarial.shape == (n, 1, 8, 8)
    fell, _, _ = over_eps(attack, model, pixels[:n], labels[:n], [0.1, 0.4])
    assert fell.shape == (n,)


def test_radii_grow_whatever_their_order_and_each_image_keeps_the_smallest_and_its_image() -> None:
    model = blocks(3)
    pixels, labels = block_images(3, (0.03, 0.06, 0.1, 0.2))
    labels[3] = (labels[3] + 2) % 3
    true = radii(model, pixels, labels, "linf").tolist()
    eps = [2 * true[2], 1.1 * true[0], 1.1 * true[1]]
    told: list[tuple[float, int, int]] = []
    fell, adversarial, outcomes = over_eps(Attack("pgd", "margin"), model, pixels, labels, eps, lambda *facts: told.append(facts))
    assert fell.tolist() == pytest.approx([eps[1], eps[2], eps[0], 0.0])
    assert [len(outcome.unbroken) for outcome in outcomes] == [3, 2, 1]
    assert told == [(radius, 4, unbroken) for radius, unbroken in zip(sorted(eps), (2, 1, 0), strict=True)]
    assert torch.equal(adversarial[3], pixels[3])
    assert (model(adversarial).argmax(1) != labels).all()
    assert (distances(adversarial, pixels, "linf") <= fell + 1e-6).all()


def test_run_verifies_what_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchattacks

    model = blocks(2)
    pixels, labels = block_images(2)
    monkeypatch.setattr(torchattacks.PGD, "forward", lambda self, images, labels: 1 - images)
    with pytest.raises(GmmcError, match="left its ball"):
        run(Attack("pgd", "margin"), model, pixels, labels, 0.1)
