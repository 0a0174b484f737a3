from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scipy.stats import binomtest, chisquare, kstest

from gmmcli.core.buffer import Dtype, decode
from gmmcli.core.chains import Chains, displacement, fresh_samples, visit
from gmmcli.core.classifier import Classifier
from gmmcli.core.model import Model
from gmmcli.core.protocols import Starts
from gmmcli.core.samplers import SGLD, FixedLength
from gmmcli.core.starts import GaussianStarts, UniformStarts
from gmmcli.core.targets import Conditional, InjectedLatent, Marginal, StagedLatent
from gmmcli.core.wide_resnet import WideResNet

SHAPE = (1, 2, 2)
NOISE = UniformStarts(SHAPE)
STILL = SGLD(n_steps=1, step_size=1e-12)
"""Leaves images where they are, to the last float32 bit of all but the tiniest pixels."""


def points(*values: float) -> GaussianStarts:
    """Starts without any spread: the images of class k all have the k-th value."""
    return GaussianStarts(SHAPE, torch.tensor(values)[:, None].repeat(1, 4), torch.zeros(len(values), 1, 4))


def batches(n_classes: int, size: int, n: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    for _ in range(n):
        yield torch.randint(n_classes, (size,), generator=generator)


def test_chains_write_back_what_they_return(linear_model: Classifier, generator: torch.Generator) -> None:
    chains = Chains(buffer_size=300, reinit_prob=0.3, sampler=SGLD(n_steps=4)).build(NOISE, 3, generator)
    before, labels = chains.buffer.images.clone(), torch.tensor([0, 1, 2, 1])
    negatives = chains(linear_model, labels, generator)
    assert torch.equal(negatives.labels, labels) and negatives.trace.shape == (4, 4)
    changed = (chains.buffer.images != before).flatten(2).any(2).nonzero()
    assert sorted(changed[:, 0].tolist()) == [0, 1, 1, 2]
    for label, slot in changed.tolist():
        assert any(torch.equal(chains.buffer.images[label, slot], image) for image in negatives.images[labels == label])


@pytest.mark.parametrize(("dtype", "atol"), [("float16", 1e-3), ("uint8", 1 / 255 + 1e-6)])
def test_smaller_buffers_keep_what_they_can(dtype: Dtype, atol: float, linear_model: Classifier, generator: torch.Generator) -> None:
    chains = Chains(buffer_size=3, dtype=dtype).build(NOISE, 3, generator)  # one slot each
    negatives = chains(linear_model, torch.arange(3), generator)
    assert negatives.images.dtype == torch.float32
    torch.testing.assert_close(decode(chains.buffer.images[:, 0]), negatives.images, atol=atol, rtol=0)


def test_chains_walk_on_from_where_they_waited(linear_model: Classifier, generator: torch.Generator) -> None:
    sampler, labels = SGLD(n_steps=3, step_size=0.05), torch.arange(3)
    chains = Chains(buffer_size=3, reinit_prob=0.0, target=Conditional(), sampler=sampler).build(NOISE, 3, generator)
    starts = chains.buffer.images[:, 0].clone()
    for _ in range(2):
        chains(linear_model, labels, generator)
    six_steps, _ = SGLD(n_steps=6, step_size=0.05)(Conditional()(linear_model, labels, generator), starts, generator)
    torch.testing.assert_close(chains.buffer.images[:, 0], six_steps)


@pytest.mark.parametrize("reinit_prob", [0.0, 0.025, 0.3, 1.0])
def test_chains_start_afresh_as_often_as_the_recipe_says(reinit_prob: float, linear_model: Classifier, generator: torch.Generator) -> None:
    chains = Chains(buffer_size=3, reinit_prob=reinit_prob, target=Conditional(), sampler=STILL).build(NOISE, 3, generator)
    chains.buffer.images.fill_(0.25)
    images = chains(linear_model, torch.arange(3).repeat(500), generator).images
    fresh = images[(images != 0.25).flatten(1).any(1)]
    if 0 < reinit_prob < 1:
        assert binomtest(len(fresh), 1500, reinit_prob).pvalue > 0.01
    else:
        assert len(fresh) == 1500 * reinit_prob
    if reinit_prob:
        assert kstest(fresh.flatten(), "uniform", (-1, 2)).pvalue > 0.01


@pytest.mark.parametrize("reinit_prob", [0.3, 1.0])
def test_a_fresh_chain_sets_out_from_its_class(reinit_prob: float, linear_model: Classifier, generator: torch.Generator) -> None:
    table = Chains(buffer_size=30, reinit_prob=reinit_prob, target=Conditional(), sampler=STILL)
    chains = table.build(points(-0.5, 0.125, 0.75), 3, generator)
    means = torch.tensor([-0.5, 0.125, 0.75])
    assert torch.equal(chains.buffer.images, means[:, None, None, None, None].expand(3, 10, *SHAPE))  # the first, all of them
    chains.buffer.images.fill_(0.25)
    labels = torch.arange(3).repeat(100)
    images = chains(linear_model, labels, generator).images
    fresh = (images != 0.25).flatten(1).any(1)
    assert torch.equal(images[fresh], means[labels[fresh]][:, None, None, None].expand(-1, *SHAPE))
    assert fresh.all() if reinit_prob == 1 else binomtest(int(fresh.sum()), 300, reinit_prob).pvalue > 0.01


def test_a_relabelled_chain_walks_on_under_another_label(linear_model: Classifier, generator: torch.Generator) -> None:
    """Every class's chains wait at a value of their own: what comes back for one label is of all of them, and stays at its place."""
    table = Chains(buffer_size=300, reinit_prob=0.0, relabel=True, target=Conditional(), sampler=STILL)
    chains = table.build(points(-0.5, 0.125, 0.75), 3, generator)
    before = chains.buffer.images.clone()
    negatives = chains(linear_model, torch.zeros(600, dtype=torch.long), generator)
    counts = [int((negatives.images[:, 0, 0, 0] - value).abs().lt(1e-6).sum()) for value in (-0.5, 0.125, 0.75)]
    assert sum(counts) == 600 and chisquare(counts).pvalue > 0.01
    assert torch.equal(negatives.labels, torch.zeros(600, dtype=torch.long))
    torch.testing.assert_close(chains.buffer.images, before)  # no image was written to another's place


def test_a_relabelled_chain_descends_the_energy_of_its_new_label(linear_model: Classifier, generator: torch.Generator) -> None:
    sampler = SGLD(n_steps=1, step_size=0.05)
    chains = Chains(buffer_size=3, reinit_prob=0.0, relabel=True, target=Conditional(), sampler=sampler).build(NOISE, 3, generator)
    waiting = chains.buffer.images.flatten(0, 1).clone()
    arrived = chains(linear_model, torch.tensor([2]), generator).images
    would, _ = sampler(Conditional()(linear_model, torch.tensor([2, 2, 2]), generator), waiting, generator)
    assert any(torch.allclose(arrived[0], image, atol=1e-6) for image in would)


@pytest.mark.parametrize(
    ("chains", "classless"), [(Chains(), False), (Chains(relabel=True, target=Conditional()), True), (Chains(target=Marginal()), True)]
)
def test_where_a_place_in_the_buffer_says_nothing_of_a_class(chains: Chains, classless: bool) -> None:
    assert chains.classless is classless


def test_displacement_is_the_root_mean_square_over_pixels() -> None:
    before, after = torch.zeros(3, 2, 1, 2), torch.zeros(3, 2, 1, 2)
    after[1] = 0.5
    after[2, 0, 0, 0], after[2, 1, 0, 1] = 0.6, -0.8
    assert displacement(before, after).tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_chains_say_how_far_they_moved_from_where_they_set_out(linear_model: Classifier, generator: torch.Generator) -> None:
    """Two steps of one length and one direction, on an energy whose slope is nearly the same everywhere near."""
    sampler = FixedLength(n_steps=2, step_size=1e-3)
    waiting = Chains(buffer_size=3, reinit_prob=0.0, target=Conditional(), sampler=sampler).build(points(0.2, 0.3, 0.4), 3, generator)
    moved = waiting(linear_model, torch.arange(3), generator).moved
    torch.testing.assert_close(moved, torch.full((3,), 2e-3 / 4**0.5), rtol=1e-3, atol=0)  # four pixels
    fresh = Chains(buffer_size=3, reinit_prob=1.0, target=Conditional(), sampler=sampler).build(points(0.2, 0.3, 0.4), 3, generator)
    fresh.buffer.images.fill_(-0.9)
    jumped = fresh(linear_model, torch.arange(3), generator).moved
    torch.testing.assert_close(jumped, torch.full((3,), 1e-3), rtol=1e-3, atol=0)  # a fresh start is no movement


def test_chains_that_stand_still_say_so(linear_model: Classifier, generator: torch.Generator) -> None:
    chains = Chains(buffer_size=3, target=Conditional(), sampler=STILL).build(NOISE, 3, generator)
    assert chains(linear_model, torch.arange(3), generator).moved.max() < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_chains_leave_the_model_alone(training: bool, generator: torch.Generator) -> None:
    """In training mode batch norm would learn from the chains, and tie every chain to its company."""
    model = Model(WideResNet(depth=10, width=1, norm="batch", init="kaiming")).build(3, 1, seed=0).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chains = Chains(buffer_size=3, reinit_prob=0.0, target=Conditional(), sampler=SGLD(n_steps=2, step_size=0.1))
    persistent = chains.build(UniformStarts((1, 8, 8)), 3, generator)
    starts = persistent.buffer.images[:, 0].clone()
    images = persistent(model, torch.arange(3), generator).images
    assert all(module.training is training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    evaluated, _ = chains.sampler(Conditional()(model.eval(), torch.arange(3), generator), starts, generator)
    torch.testing.assert_close(images, evaluated)
    assert not images.requires_grad


def test_same_randomness_gives_the_same_chains(linear_model: Classifier) -> None:
    def run(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        chains = Chains(buffer_size=30, sampler=SGLD(n_steps=2, noise_std=0.01)).build(NOISE, 3, generator)
        return torch.cat([chains(linear_model, labels, generator).images for labels in batches(3, 8, 4, generator)])

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


@pytest.mark.parametrize(("n_steps", "visits"), [(0, []), (3, [3]), (5, [5]), (10, [5, 5]), (12, [5, 5, 2])])
def test_fresh_samples_make_exactly_their_steps_in_visits(
    n_steps: int, visits: list[int], linear_model: Classifier, generator: torch.Generator
) -> None:
    made: list[int] = []

    class Counted(Conditional):
        def __call__(self, model, labels, generator):  # type: ignore[no-untyped-def]
            made.append(0)
            energy = super().__call__(model, labels, generator)

            def counting(images: torch.Tensor) -> torch.Tensor:
                made[-1] += 1
                return energy(images)

            return counting

    table = Chains(target=Counted(), sampler=SGLD(n_steps=5, step_size=0.1))
    images = fresh_samples(linear_model, table, NOISE, torch.tensor([0, 1]), generator, n_steps=n_steps)
    assert made == visits
    assert images.shape == (2, *SHAPE) and images.abs().max() <= 1


def test_fresh_samples_descend_from_uniform_starts(linear_model: Classifier, generator: torch.Generator) -> None:
    labels, sampler = torch.arange(3).repeat(20), SGLD(n_steps=4, step_size=0.05)
    table = Chains(target=Conditional(), sampler=sampler)
    starts, arrived = (
        fresh_samples(linear_model, table, NOISE, labels, torch.Generator().manual_seed(5), n_steps=n_steps) for n_steps in (0, 10)
    )
    assert kstest(starts.flatten(), "uniform", (-1, 2)).pvalue > 0.01
    expected, _ = SGLD(n_steps=10, step_size=0.05)(Conditional()(linear_model, labels, generator), starts, generator)
    torch.testing.assert_close(arrived, expected)


@pytest.mark.parametrize("starts", [NOISE, points(0.1, 0.2, 0.3)], ids=["uniform", "gaussian"])
def test_fresh_samples_of_no_steps_are_their_starts(starts: Starts, linear_model: Classifier) -> None:
    labels = torch.tensor([2, 0, 1, 1])
    images = fresh_samples(linear_model, Chains(), starts, labels, torch.Generator().manual_seed(3), n_steps=0)
    assert torch.equal(images, starts(labels, torch.Generator().manual_seed(3)))


def test_fresh_samples_take_any_samplers_steps(linear_model: Classifier, generator: torch.Generator) -> None:
    table = Chains(target=Conditional(), sampler=FixedLength(n_steps=2, step_size=1e-3))
    images = fresh_samples(linear_model, table, points(0.1, 0.2, 0.3), torch.arange(3), generator, n_steps=7)
    starts = points(0.1, 0.2, 0.3)(torch.arange(3), generator)
    torch.testing.assert_close((images - starts).flatten(1).norm(dim=1), torch.full((3,), 7e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("target", [StagedLatent(std=0.5), InjectedLatent(std=0.5)])
def test_each_visit_draws_its_own_target(
    target: StagedLatent | InjectedLatent, linear_model: Classifier, generator: torch.Generator
) -> None:
    arrived = [visit(linear_model, target, SGLD(n_steps=1), torch.arange(3), torch.zeros(3, *SHAPE), generator)[0] for _ in range(2)]
    assert not torch.equal(*arrived)


@pytest.mark.parametrize(
    ("n_steps", "reinit_prob", "lifetime"), [(20, 0.025, 800), (10, 0.05, 200), (5, 1.0, 5), (20, 0.0, 2000), (20, 5e-324, 2**62)]
)
def test_lifetime_is_the_expected_age_of_a_chain(n_steps: int, reinit_prob: float, lifetime: int) -> None:
    assert Chains(reinit_prob=reinit_prob, sampler=SGLD(n_steps=n_steps)).lifetime == lifetime


def test_fresh_samples_run_for_a_lifetime_unless_told(linear_model: Classifier) -> None:
    table = Chains(reinit_prob=0.5, target=Conditional(), sampler=SGLD(n_steps=2))
    default, four = (
        fresh_samples(linear_model, table, NOISE, torch.arange(3), torch.Generator().manual_seed(0), n_steps) for n_steps in (None, 4)
    )
    assert torch.equal(default, four)


@pytest.mark.parametrize(("buffer_size", "n_classes", "nearest"), [(100, 7, 98), (13, 10, 10), (17, 10, 20), (3, 10, 10), (1, 2, 2)])
def test_buffers_that_classes_cannot_share_are_refused(buffer_size: int, n_classes: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"buffer_size {buffer_size} does not divide by {n_classes} .* {nearest}$"):
        Chains(buffer_size=buffer_size).slots(n_classes)
    assert Chains(buffer_size=nearest).slots(n_classes) == nearest // n_classes


def test_the_noise_of_fresh_samples_falls_to_the_samplers_own(linear_model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    visits = []

    def recorded(model: Classifier, target: Any, sampler: SGLD, labels: Any, images: Any, *rest: Any) -> Any:
        visits.append((sampler.n_steps, round(sampler.noise_std, 6)))
        return images, None

    monkeypatch.setattr("gmmcli.core.chains.visit", recorded)
    table = Chains(sampler=SGLD(n_steps=4, noise_std=0.05), fresh_noise_std=1.0)
    fresh_samples(linear_model, table, UniformStarts((1, 8, 8)), torch.tensor([0, 1]), torch.Generator().manual_seed(0), n_steps=10)
    assert visits == [(4, 0.6), (4, 0.2), (2, 0.05)]


def test_chains_without_labels_draw_a_class_by_its_own_energy() -> None:
    assert Chains(target=Marginal(), reinit_prob=0.5).of_classes == Chains(target=Conditional(), reinit_prob=0.5)
    assert Chains(target=StagedLatent(std=0.1)).of_classes == Chains(target=StagedLatent(std=0.1))


@dataclass(frozen=True)
class Silent:
    """A sampler of another package, whose noise cannot be set."""

    noise_std: ClassVar[float] = 0.0
    kind: str = "silent"
    n_steps: int = 1
    step_size: float = 1.0

    def __call__(self, energy: Any, images: torch.Tensor, generator: torch.Generator) -> Any: ...


def test_a_sampler_whose_settings_are_no_keys_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^noise_std must be a key of sampler silent"):
        Chains(sampler=Silent())
