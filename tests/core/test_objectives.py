import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gmmcli.core.classifier import Classifier
from gmmcli.core.heads import Linear, MaxMahalanobis, MaxMahalanobisHead
from gmmcli.core.model import Model
from gmmcli.core.objectives import CenterRegression, ContrastiveDivergence, CrossEntropy, JointEnergyModel
from gmmcli.core.protocols import Objective
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.types import Batch, Negatives

REAL, SAMPLED = 6, 4


class TwoParameters(nn.Module):
    """``phi(x) = (a m(x), b s(x))`` with the mean m and the mean square s of the pixels.

    With the means at (1, 0) and (-1, 0), ``E(x, y) = 1/2 (a m - c_y)^2 + 1/2 (b s)^2`` for c_y = 1 or -1, hence
    ``dE/da = (a m - c_y) m`` and ``dE/db = b s^2``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(-1.3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.a * images.mean((1, 2, 3)), self.b * images.square().mean((1, 2, 3))], 1)

    def by_hand(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies (batch), and their gradients to a and b (batch, 2)."""
        a, b = self.a.item(), self.b.item()
        m, s = images.double().mean((1, 2, 3)), images.double().square().mean((1, 2, 3))
        c = 1.0 - 2.0 * labels
        return ((a * m - c) ** 2 + (b * s) ** 2) / 2, torch.stack([(a * m - c) * m, b * s**2], 1)


@pytest.fixture
def model() -> Classifier:
    return Classifier(TwoParameters(), MaxMahalanobisHead(2, 2, 1.0))


@pytest.fixture
def batch(generator: torch.Generator) -> Batch:
    return Batch(torch.rand(REAL, 1, 3, 3, generator=generator).mul(2).sub(1), torch.tensor([0, 1, 1, 0, 1, 0]))


@pytest.fixture
def negatives(generator: torch.Generator) -> Negatives:
    """Sampled images of label 0, brighter and brighter: their energies fall with the mean, then rise with the square."""
    images = torch.rand(SAMPLED, 1, 3, 3, generator=generator).mul(0.2) + torch.tensor([-0.9, -0.3, 0.3, 0.7])[:, None, None, None]
    return Negatives(images, torch.zeros(SAMPLED, dtype=torch.long), torch.zeros(1, SAMPLED), torch.zeros(SAMPLED))


@pytest.fixture
def both(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch, with other images to raise the density of."""
    return batch._replace(clean=torch.rand(REAL, 1, 3, 3, generator=generator).mul(1.4).sub(0.4))


def gradient(model: Classifier, objective: Objective, batch: Batch, negatives: Negatives | None, ramp: float = 1.0) -> torch.Tensor:
    model.zero_grad()
    objective(model, batch, negatives, ramp).total.backward()
    return torch.stack([p.grad for p in model.parameters() if p.grad is not None]).double()


@pytest.mark.parametrize("ramp", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_contrastive_gradient_is_equation_7(model: Classifier, batch: Batch, negatives: Negatives, beta: float, ramp: float) -> None:
    energies, slopes = model.backbone.by_hand(batch.images, batch.labels)
    sampled_energies, sampled_slopes = model.backbone.by_hand(negatives.images, negatives.labels)
    objective = ContrastiveDivergence(beta=beta)
    expected = energies.mean() - ramp * beta * sampled_energies.mean()
    torch.testing.assert_close(objective(model, batch, negatives, ramp).total.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient(model, objective, batch, negatives, ramp), slopes.mean(0) - ramp * beta * sampled_slopes.mean(0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("floor", [0.0, 1.0])  # a floor in units of the mean energy, so that it lifts the lower margins only
@pytest.mark.parametrize("margin", [0.5, 1.0, 1.5, 100.0])
def test_bounded_negatives_push_only_from_below_the_bound(
    model: Classifier, batch: Batch, negatives: Negatives, margin: float, floor: float
) -> None:
    energies, slopes = model.backbone.by_hand(batch.images, batch.labels)
    sampled, sampled_slopes = model.backbone.by_hand(negatives.images, negatives.labels)
    bound = max(margin, floor) * energies.mean()
    objective = ContrastiveDivergence(beta=0.5, margin=margin, floor=floor * energies.mean().item())
    loss = objective(model, batch, negatives)
    below = sampled < bound
    assert math.isclose(loss.parts["below_bound"], below.double().mean())
    torch.testing.assert_close(loss.total.double(), energies.mean() - 0.5 * sampled.clamp(max=bound).mean(), rtol=1e-5, atol=1e-6)
    pushed = (sampled_slopes * below[:, None]).mean(0)
    torch.testing.assert_close(gradient(model, objective, batch, negatives), slopes.mean(0) - 0.5 * pushed, rtol=1e-4, atol=1e-6)


def test_margins_above_meet_none_some_and_all_of_the_negatives(model: Classifier, batch: Batch, negatives: Negatives) -> None:
    """The table above would prove little if every negative lay on one side of every bound."""
    shares = [ContrastiveDivergence(margin=m)(model, batch, negatives).parts["below_bound"].item() for m in (0.5, 1.0, 1.5, 100.0)]
    assert shares[0] < shares[2] < shares[3] == 1 and shares == sorted(shares)


def test_the_bound_itself_is_not_pushed(model: Classifier, batch: Batch, negatives: Negatives) -> None:
    above = negatives._replace(images=torch.full_like(negatives.images, -1.0))
    only_real = ContrastiveDivergence(beta=0.0)
    bounded = ContrastiveDivergence(beta=1.0, margin=0.1)
    assert bounded(model, batch, above).parts["below_bound"] == 0
    torch.testing.assert_close(gradient(model, bounded, batch, above), gradient(model, only_real, batch, above))


def test_contrastive_step_is_one_forward_over_real_and_sampled(model: Classifier, batch: Batch, negatives: Negatives) -> None:
    sizes = []
    model.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    ContrastiveDivergence(margin=2.0)(model, batch, negatives)
    assert sizes == [REAL + SAMPLED]


def test_a_floor_without_a_margin_bounds_nothing() -> None:
    with pytest.raises(ValueError, match="without a margin"):
        ContrastiveDivergence(floor=1.0)


def test_contrastive_divergence_needs_negatives(model: Classifier, batch: Batch) -> None:
    assert ContrastiveDivergence.needs_negatives and not CrossEntropy.needs_negatives and not CenterRegression.needs_negatives
    with pytest.raises(ValueError, match="needs the negatives"):
        ContrastiveDivergence()(model, batch, None)


def test_center_regression_is_the_mean_energy(model: Classifier, batch: Batch) -> None:
    energies, slopes = model.backbone.by_hand(batch.images, batch.labels)
    loss = CenterRegression()(model, batch, None)
    torch.testing.assert_close(loss.total.double(), energies.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(model, CenterRegression(), batch, None), slopes.mean(0), rtol=1e-4, atol=1e-6)
    assert torch.equal(loss.parts["energy_data"], loss.total.detach())


def test_cross_entropy_is_the_mean_surprise(model: Classifier, batch: Batch) -> None:
    logits = model(batch.images).double()
    chosen = logits[torch.arange(REAL), batch.labels]
    expected = (logits.exp().sum(1).log() - chosen).mean()
    total, parts = CrossEntropy()(model, batch, None)
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts["energy_data"].double(), -logits.exp().sum(1).log().mean(), rtol=1e-5, atol=1e-6)


def test_cross_entropy_gradient_to_logits_is_probability_less_truth(model: Classifier, batch: Batch) -> None:
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _args: object, logits: torch.Tensor) -> None:
        logits.retain_grad()
        kept.append(logits)

    model.register_forward_hook(keep)
    CrossEntropy()(model, batch, None).total.backward()
    expected = (kept[0].detach().softmax(1) - F.one_hot(batch.labels, 2)) / REAL
    torch.testing.assert_close(kept[0].grad, expected)


@pytest.mark.parametrize(
    "objective", [CrossEntropy(), CenterRegression(), ContrastiveDivergence(), ContrastiveDivergence(margin=2.0), JointEnergyModel()]
)
def test_parts_are_detached_and_count_only_real_images(objective: Objective, model: Classifier, batch: Batch, negatives: Negatives) -> None:
    total, parts = objective(model, batch, negatives)
    assert total.requires_grad and not any(part.requires_grad for part in parts.values())
    right = model(batch.images).argmax(1) == batch.labels
    assert 0 < right.sum() < REAL
    assert math.isclose(parts["accuracy"], right.float().mean(), rel_tol=1e-6)


def test_contrastive_parts_are_both_mean_energies(model: Classifier, batch: Batch, negatives: Negatives) -> None:
    parts = ContrastiveDivergence(margin=0.01)(model, batch, negatives).parts
    real, _ = model.backbone.by_hand(batch.images, batch.labels)
    sampled, _ = model.backbone.by_hand(negatives.images, negatives.labels)  # logged as they are, not as they are bounded
    assert math.isclose(parts["energy_data"], real.mean(), rel_tol=1e-5)
    assert math.isclose(parts["energy_model"], sampled.mean(), rel_tol=1e-5)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_l2_adds_the_squares_of_both_energies(model: Classifier, batch: Batch, negatives: Negatives, l2: float) -> None:
    real, _ = model.backbone.by_hand(batch.images, batch.labels)
    sampled, _ = model.backbone.by_hand(negatives.images, negatives.labels)
    expected = real.mean() - 0.5 * sampled.mean() + l2 * (real.square().mean() + sampled.square().mean())
    assert math.isclose(ContrastiveDivergence(l2=l2)(model, batch, negatives).total.item(), expected, rel_tol=1e-5)


def test_a_margin_bounds_the_contrast_and_not_the_squares(model: Classifier, batch: Batch, negatives: Negatives) -> None:
    real, _ = model.backbone.by_hand(batch.images, batch.labels)
    sampled, _ = model.backbone.by_hand(negatives.images, negatives.labels)
    bounded = sampled.clamp(max=0.9 * real.mean())
    assert bounded.max() < sampled.max()
    expected = real.mean() - 0.5 * bounded.mean() + 0.3 * (real.square().mean() + sampled.square().mean())
    assert math.isclose(ContrastiveDivergence(margin=0.9, l2=0.3)(model, batch, negatives).total.item(), expected, rel_tol=1e-5)


@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("beta", "l2"), [(1.0, 0.0), (0.4, 0.2)])
def test_jem_is_cross_entropy_plus_the_marginal_contrast(
    model: Classifier, batch: Batch, negatives: Negatives, beta: float, l2: float, ramp: float
) -> None:
    real, sampled = (model(images).detach().double() for images in (batch.images, negatives.images))
    data, chains = -real.logsumexp(1), -sampled.logsumexp(1)
    surprise = -torch.log_softmax(real, 1)[torch.arange(REAL), batch.labels].mean()
    expected = surprise + ramp * beta * (data.mean() - chains.mean()) + l2 * (data.square().mean() + chains.square().mean())
    total, parts = JointEnergyModel(beta=beta, l2=l2)(model, batch, negatives, ramp)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert parts["cross_entropy"].item() == pytest.approx(surprise.item(), rel=1e-5, abs=1e-6)
    assert parts["energy_data"].item() == pytest.approx(data.mean().item(), rel=1e-5, abs=1e-6)
    assert parts["energy_model"].item() == pytest.approx(chains.mean().item(), rel=1e-5, abs=1e-6)


def test_jem_does_not_look_at_the_labels_of_its_negatives(model: Classifier, batch: Batch, negatives: Negatives) -> None:
    other = negatives._replace(labels=1 - negatives.labels)
    assert torch.equal(JointEnergyModel()(model, batch, negatives).total, JointEnergyModel()(model, batch, other).total)
    with pytest.raises(ValueError, match="needs the negatives"):
        JointEnergyModel()(model, batch, None)


@pytest.mark.parametrize("ramp", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("margin", [0.0, 0.5, 1.5, 100.0])
def test_clean_positives_of_the_contrastive_loss_by_hand(
    model: Classifier, both: Batch, negatives: Negatives, margin: float, ramp: float
) -> None:
    """``E(x_aug) + beta (E(x) - min(E', bound))`` with the bound from the clean images."""
    assert both.clean is not None
    augmented, augmented_slopes = model.backbone.by_hand(both.images, both.labels)
    clean, clean_slopes = model.backbone.by_hand(both.clean, both.labels)
    sampled, sampled_slopes = model.backbone.by_hand(negatives.images, negatives.labels)
    bound = margin * clean.mean() if margin else torch.tensor(math.inf)
    beta = 0.5 * ramp
    objective = ContrastiveDivergence(beta=0.5, margin=margin, clean_positive=True)
    total, parts = objective(model, both, negatives, ramp)
    expected = augmented.mean() + beta * (clean.mean() - sampled.clamp(max=bound).mean())
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
    pushed = (sampled_slopes * (sampled < bound)[:, None]).mean(0)
    slope = augmented_slopes.mean(0) + beta * (clean_slopes.mean(0) - pushed)
    torch.testing.assert_close(gradient(model, objective, both, negatives, ramp), slope, rtol=1e-4, atol=1e-6)
    assert parts["energy_data"].item() == pytest.approx(clean.mean().item(), rel=1e-5)
    right = model(both.images).argmax(1) == both.labels
    assert parts["accuracy"].item() == pytest.approx(right.float().mean().item())  # of what is classified in training


def test_l2_holds_the_energies_of_the_clean_images(model: Classifier, both: Batch, negatives: Negatives) -> None:
    assert both.clean is not None
    clean, _ = model.backbone.by_hand(both.clean, both.labels)
    sampled, _ = model.backbone.by_hand(negatives.images, negatives.labels)
    with_l2, without = (ContrastiveDivergence(l2=l2, clean_positive=True)(model, both, negatives).total.item() for l2 in (0.3, 0.0))
    assert with_l2 - without == pytest.approx(0.3 * (clean.square().mean() + sampled.square().mean()).item(), rel=1e-4)


@pytest.mark.parametrize(("beta", "l2", "ramp"), [(1.0, 0.0, 1.0), (0.4, 0.2, 0.5), (1.0, 0.0, 0.0)])
def test_clean_positives_of_jem_by_hand(model: Classifier, both: Batch, negatives: Negatives, beta: float, l2: float, ramp: float) -> None:
    """``CE(x_aug, y) + beta (E(x) - E(x'))``; the gradient is that of the same sum written out in energies."""
    assert both.clean is not None

    def written_out() -> torch.Tensor:
        augmented, data, chains = (model(images) for images in (both.images, both.clean, negatives.images))
        surprise = (augmented.exp().sum(1).log() - augmented[torch.arange(REAL), both.labels]).mean()
        data, chains = -data.exp().sum(1).log(), -chains.exp().sum(1).log()
        squares = data.square().mean() + chains.square().mean()
        return surprise + ramp * beta * (data.mean() - chains.mean()) + l2 * squares

    objective = JointEnergyModel(beta=beta, l2=l2, clean_positive=True)
    expected = written_out()
    model.zero_grad()
    expected.backward()
    slope = torch.stack([p.grad.clone() for p in model.parameters() if p.grad is not None]).double()
    total, parts = objective(model, both, negatives, ramp)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(model, objective, both, negatives, ramp), slope, rtol=1e-4, atol=1e-6)
    data = -model(both.clean).detach().logsumexp(1).mean()
    assert parts["energy_data"].item() == pytest.approx(data.item(), rel=1e-5, abs=1e-6)


GENERATIVE = [ContrastiveDivergence, JointEnergyModel]


@pytest.mark.parametrize("kind", GENERATIVE)
def test_clean_positives_that_are_the_batch_itself_change_nothing_but_the_weight_of_real_images(
    kind: type[ContrastiveDivergence | JointEnergyModel], model: Classifier, batch: Batch, negatives: Negatives
) -> None:
    """Contrastive divergence counts the same images twice then: once for regression, once for the contrast."""
    itself = batch._replace(clean=batch.images)
    total, parts = kind(clean_positive=True)(model, itself, negatives)
    plain, _ = kind()(model, batch, negatives)
    more = kind().beta * parts["energy_data"] if kind is ContrastiveDivergence else 0.0
    torch.testing.assert_close(total.detach(), plain.detach() + more)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_clean_positives_share_the_one_forward(
    kind: type[ContrastiveDivergence | JointEnergyModel], model: Classifier, both: Batch, negatives: Negatives
) -> None:
    sizes = []
    model.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    kind(clean_positive=True)(model, both, negatives)
    kind()(model, both, negatives)
    assert sizes == [REAL + SAMPLED + REAL, REAL + SAMPLED]


def with_batch_norm(head: MaxMahalanobis | Linear) -> Classifier:
    return Model(WideResNet(depth=10, width=1, norm="batch", init="kaiming"), head).build(2, 1, seed=0).train()


def by_hand(model: Classifier, batch: Batch, negatives: Negatives) -> torch.Tensor:
    """The loss as the authors of GMMC and JEM write it: a forward for each set of images, one after another."""
    real, sampled = model(batch.images), model(negatives.images)
    positive = real if batch.clean is None else model(batch.clean)
    if isinstance(model.head, MaxMahalanobisHead):
        energy, contrast = (-logits.gather(1, y[:, None]).mean() for logits, y in ((real, batch.labels), (sampled, negatives.labels)))
        if batch.clean is None:
            return energy - 0.5 * contrast
        return energy + 0.5 * (-positive.gather(1, batch.labels[:, None]).mean() - contrast)
    return F.cross_entropy(real, batch.labels) - positive.logsumexp(1).mean() + sampled.logsumexp(1).mean()


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize(("kind", "head"), [(ContrastiveDivergence, MaxMahalanobis()), (JointEnergyModel, Linear())])
def test_a_separate_norm_is_a_forward_for_each_set_of_images(
    kind: type[ContrastiveDivergence | JointEnergyModel],
    head: MaxMahalanobis | Linear,
    clean: bool,
    both: Batch,
    negatives: Negatives,
) -> None:
    batch = both if clean else both._replace(clean=None)
    models = [with_batch_norm(head) for _ in range(3)]
    losses = [
        by_hand(models[0], batch, negatives),
        *(kind(clean_positive=clean, separate_norm=s)(m, batch, negatives).total for m, s in zip(models[1:], (True, False), strict=True)),
    ]
    for loss in losses:
        loss.backward()
    expected, separate = ([*m.buffers(), *(p.grad for p in m.parameters())] for m in models[:2])
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(separate, expected)
    assert models[1].backbone.norm.num_batches_tracked == (3 if clean else 2)
    assert models[2].backbone.norm.num_batches_tracked == 1
    assert not torch.allclose(losses[2], losses[0], rtol=1e-3)  # common statistics make another loss of the same images,
    means = [m.backbone.norm.running_mean for m in models]
    assert not torch.allclose(means[2], means[0], rtol=1e-2)  # and other running statistics


@pytest.mark.parametrize("kind", GENERATIVE)
def test_without_batch_norm_a_separate_norm_changes_nothing(
    kind: type[ContrastiveDivergence | JointEnergyModel], model: Classifier, both: Batch, negatives: Negatives
) -> None:
    one, other = (kind(clean_positive=True, separate_norm=s)(model, both, negatives) for s in (False, True))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_clean_positives_need_clean_images(
    kind: type[ContrastiveDivergence | JointEnergyModel], model: Classifier, batch: Batch, negatives: Negatives
) -> None:
    with pytest.raises(ValueError, match="clean_positive needs a batch with clean images"):
        kind(clean_positive=True)(model, batch, negatives)
    assert not kind().clean_positive and not CrossEntropy().clean_positive and not CenterRegression().clean_positive
