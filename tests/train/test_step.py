"""One training step: what it may touch, what it may wait for, and what its randomness depends on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trainings import Begin

from gmmcli.core.classifier import Classifier
from gmmcli.core.objectives import CenterRegression, ContrastiveDivergence
from gmmcli.recipe import Stage
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import StepReport, set_mode, training_step
from gmmcli.types import Batch, to_model

JOINT = """stages=[{epochs=1,objective={kind="center-regression"}},
                   {epochs=2,ramp_epochs=1,objective={kind="contrastive-divergence",beta=0.5,margin=2.0}}]"""
KINDS = {
    "generative": ("chains.sampler.noise_std=0.01", "data.crop_padding=1", "data.flip=true"),
    "uint8, batch norm": ("chains.dtype=uint8", "model.backbone.norm=batch"),
    "injected": ("chains.target.kind=injected-latent",),
    "conditional, lda": ("chains.target.kind=conditional", "model.head.kind=lda"),
    "discriminative": ("stages.0.objective.kind=center-regression",),
    "sharpness, average": (
        "optim.kind=sgd",
        "optim.sam_rho=0.1",
        "optim.sam_adaptive=true",
        "optim.ema_decay=0.9",
        "model.backbone.norm=batch",
    ),
    "softmax": ("stages.0.objective.kind=cross-entropy", "model.head.kind=linear"),
    "class-gaussian, fixed length": ("chains.start.kind=class-gaussian", "chains.sampler.kind=fixed-length", "data.crop_padding=1"),
    "gaussian, clipped": ("chains.start.kind=gaussian", "chains.sampler.clip=0.01"),
    "clean positives, frozen norm": (
        "stages.0.objective.clean_positive=true",
        "stages.0.freeze_norm=true",
        "model.backbone.norm=batch",
        "data.flip=true",
    ),
    "clean positives, separate norm": (
        "stages.0.objective.clean_positive=true",
        "stages.0.objective.separate_norm=true",
        "model.backbone.norm=batch",
    ),
    "spectral norm, pooling": ("model.backbone.spectral_norm=true", "model.backbone.downsample=avg-pool"),
}


def steps(setup: Setup, state: TrainState, n: int = 1) -> StepReport:
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    for _ in range(n):
        report = training_step(setup, state, update)
    return report


WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim", "allclose"}
"""Operations whose result, or its shape, the host must know: on a GPU each one waits for all that was queued."""


class NoWaiting(TorchDispatchMode):
    """Every operation that would make the host wait for the device is a failure."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            leaf.dtype == torch.bool for leaf in tree_leaves(args[1]) if isinstance(leaf, torch.Tensor)
        )
        assert name not in WAITING and not by_mask, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


class Sizes(TorchDispatchMode):
    """Record every operation with the sizes of its results, those that lie in one tensor's memory told apart."""

    def __init__(self, apart: torch.Tensor) -> None:
        super().__init__()
        self.apart = apart.untyped_storage().data_ptr()
        self.seen: list[tuple[str, tuple[int, ...]]] = []
        self.on_it: list[str] = []

    def _is_apart(self, values: Any) -> bool:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
        return any(tensor.untyped_storage().data_ptr() == self.apart for tensor in tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if self._is_apart((args, kwargs)):
            self.on_it.append(name)
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and not self._is_apart(leaf)]
        self.seen.append((name, tuple(sizes)))
        return result


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_a_step_never_waits_for_the_device(begin: Begin, overrides: Sequence[str]) -> None:
    setup, _ = begin(*overrides)
    state = setup.initial_state()
    steps(setup, state)
    with NoWaiting():
        steps(setup, state, 2)


@pytest.mark.parametrize("wait", [lambda t: bool(t.sum() > 0), lambda t: t[t > 0], lambda t: t.sum().item(), lambda t: torch.equal(t, t)])
def test_the_check_for_waiting_would_notice(wait: Any) -> None:
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        wait(torch.ones(3))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_step_costs_the_same_with_a_thousand_and_a_hundred_thousand_slots(begin: Begin, dtype: str) -> None:
    traces = []
    for slots in (1000, 100_000):
        setup, _ = begin(f"chains.buffer_size={slots}", f"chains.dtype={dtype}")
        state = setup.initial_state()
        assert state.chains is not None
        steps(setup, state)
        before = state.chains.buffer.images.clone()
        with Sizes(state.chains.buffer.images) as sizes:
            steps(setup, state)
        assert sizes.on_it == ["index", "index_put_"]  # batch-many read, batch-many written
        changed = (state.chains.buffer.images != before).flatten(2).any(2)
        assert 1 <= int(changed.sum()) <= setup.recipe.data.batch_size
        traces.append(sizes.seen)
    assert traces[0] == traces[1]  # the same operations on tensors of the same sizes
    assert max(size for _, result in traces[1] for size in result) < 100_000 * 64


def test_a_discriminative_stage_leaves_the_chains_alone(begin: Begin) -> None:
    setup, _ = begin(JOINT)
    state = setup.initial_state()
    assert state.chains is not None
    before = state.chains.buffer.images.clone()
    report = steps(setup, state, 5)
    assert report.negatives is None
    assert torch.equal(state.chains.buffer.images, before)
    report = steps(setup, state)
    assert report.negatives is not None
    assert not torch.equal(state.chains.buffer.images, before)


def test_beta_rises_from_nothing_to_its_full_value(begin: Begin) -> None:
    setup, _ = begin(JOINT)
    state = setup.initial_state()
    steps(setup, state, 5)
    for step in range(5, 15):
        loss = steps(setup, state).loss
        data, ramp = float(loss.parts["energy_data"]), min(1.0, (step - 5) / 5)
        # the sampled images' share, from the loss alone: 0 at first, at most beta times the bound later
        pull = data - float(loss.total.detach())
        assert pull <= ramp * 0.5 * 2 * data + 1e-3
        assert (pull > 1e-3) == (ramp > 0)
        if float(loss.parts["below_bound"]) == 1:
            assert pull == pytest.approx(ramp * 0.5 * float(loss.parts["energy_model"]), rel=1e-4)


def test_the_learning_rate_is_the_recipes_times_a_factor_for_each_rollback(begin: Begin) -> None:
    setup, _ = begin("optim.warmup_steps=10", "guard.lr_factor=0.1")
    state = setup.initial_state()
    assert steps(setup, state).learning_rate == pytest.approx(1e-4)
    state.rollbacks = 2
    assert steps(setup, state).learning_rate == pytest.approx(2e-4 * 0.01)
    assert [group["lr"] for group in state.optimizer.param_groups] == [pytest.approx(2e-6)]


def test_sharpness_moves_statistics_once_and_asks_for_the_chains_once(begin: Begin) -> None:
    moved = []
    for rho in (0.0, 0.5):
        setup, _ = begin("model.backbone.norm=batch", f"optim.sam_rho={rho}")
        state = setup.initial_state()
        report = steps(setup, state)
        assert state.chains is not None
        moved.append((dict(state.model.named_buffers()), report.loss.parts, state.chains.buffer.images, state.model.state_dict()))
    (plain, losses, images, weights), (sharp, losses_again, images_again, other_weights) = moved
    assert all(torch.equal(buffer, sharp[name]) for name, buffer in plain.items())
    assert {int(buffer) for name, buffer in sharp.items() if name.endswith("num_batches_tracked")} == {1}
    assert losses == losses_again
    assert torch.equal(images, images_again)
    assert not torch.equal(weights["backbone.stem.weight"], other_weights["backbone.stem.weight"])


def test_sharpness_looks_at_the_same_loss_uphill(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, float]] = []

    class Spy(CenterRegression):
        def __call__(self, model: Any, batch: Any, negatives: Any, ramp: float = 1.0) -> Any:
            seen.append((id(batch.images), id(negatives), float(model.backbone.stem.weight.detach().sum())))
            return super().__call__(model, batch, negatives, ramp)

    setup, _ = begin("optim.sam_rho=0.5")
    recipe = replace(setup.recipe, stages=(replace(setup.recipe.stages[0], objective=Spy()),))
    setup = replace(setup, recipe=recipe)
    steps(setup, setup.initial_state())
    (images, negatives, weight), (images_again, negatives_again, uphill) = seen
    assert (images, negatives) == (images_again, negatives_again)
    assert weight != uphill


SWITCH = """stages=[{epochs=1,objective={kind="center-regression"}},
                    {epochs=2,objective={kind="center-regression"},
                     optim={kind="sgd",learning_rate=1e-3,warmup_steps=10,milestones=[1],decay=0.1,ema_decay=0.9}},
                    {epochs=1,objective={kind="center-regression"}}]"""


def test_each_phase_starts_with_an_optimiser_without_a_past_and_rates_of_its_own(begin: Begin) -> None:
    setup, _ = begin(SWITCH, "optim.warmup_steps=20")
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    rates, kinds, ages = [], [], []
    for _ in range(setup.n_steps):
        rates.append(training_step(setup, state, update).learning_rate)
        kinds.append(type(state.optimizer))
        ages.append([float(entry["step"]) for entry in state.optimizer.state.values() if "step" in entry][:1])
        assert update.optimizer is state.optimizer
        assert (state.average is not None) == (5 <= state.step - 1 < 15)
    shared = [1e-3 * share / 20 for share in range(1, 21)]
    own = [1e-3 * share / 10 for share in range(1, 6)] + [1e-4 * share / 10 for share in range(6, 11)]
    assert rates == pytest.approx(shared[:5] + own + shared[15:])
    assert kinds == [torch.optim.Adam] * 5 + [torch.optim.SGD] * 10 + [torch.optim.Adam] * 5
    assert ages == [[1], [2], [3], [4], [5]] + [[]] * 10 + [[1], [2], [3], [4], [5]]


def test_an_average_sets_out_from_the_weights_at_the_switch_and_follows_them(begin: Begin) -> None:
    setup, _ = begin(SWITCH)
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    for _ in range(5):
        training_step(setup, state, update)
    assert state.published is state.model
    expected = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    for n in range(10):
        training_step(setup, state, update)
        kept = min(0.9, (1 + n) / (10 + n))
        for name, tensor in state.model.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * tensor
    assert state.published is state.average
    for name, tensor in state.published.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert not torch.equal(state.published.state_dict()["backbone.stem.weight"], state.model.state_dict()["backbone.stem.weight"])


def test_an_unhealthy_step_moves_no_average(begin: Begin) -> None:
    setup, _ = begin("optim.ema_decay=0.9", "model.backbone.norm=batch")
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    training_step(setup, state, update)
    assert state.average is not None
    before = {name: tensor.clone() for name, tensor in state.average.state_dict().items()}
    update.max_loss = 1e-30
    training_step(setup, state, update)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.average.state_dict().items())
    assert not torch.equal(state.model.state_dict()["backbone.norm.running_mean"], before["backbone.norm.running_mean"])


def test_a_rollback_changes_the_noise_and_not_the_images_chosen(begin: Begin) -> None:
    setup, _ = begin()
    losses, chosen = [], []
    for rollbacks in (0, 0, 1):
        state = setup.initial_state()
        state.rollbacks = rollbacks
        report = steps(setup, state)
        assert report.negatives is not None
        losses.append(float(report.loss.total.detach()))
        chosen.append(report.negatives.labels)
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(chosen[0], chosen[2])


TWO = """stages=[{epochs=1,objective={kind="center-regression"}},
                 {epochs=1,freeze_norm=FROZEN,objective={kind="contrastive-divergence",margin=2.0}}]"""


def statistics(state: TrainState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items() if "running" in name or "num_batches" in name}


def norms(state: TrainState) -> dict[str, torch.Tensor]:
    """Scales and offsets of every batch norm."""
    return {
        f"{name}.{key}": parameter.detach().clone()
        for name, layer in state.model.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        for key, parameter in layer.named_parameters()
    }


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_a_frozen_norm_keeps_its_statistics_and_learns_its_weights(begin: Begin, frozen: str) -> None:
    setup, _ = begin(TWO.replace("FROZEN", frozen), "model.backbone.norm=batch")
    state = setup.initial_state()
    at_first = statistics(state)
    steps(setup, state, 5)
    learnt, affine = statistics(state), norms(state)
    assert learnt and affine
    assert not any(torch.equal(tensor, at_first[key]) for key, tensor in learnt.items())
    steps(setup, state, 3)
    assert [torch.equal(tensor, learnt[key]) for key, tensor in statistics(state).items()] == [frozen == "true"] * len(learnt)
    assert not any(torch.equal(tensor, affine[key]) for key, tensor in norms(state).items())


def test_a_stage_after_a_frozen_one_moves_its_statistics_again(begin: Begin) -> None:
    stages = 'stages=[{epochs=1,freeze_norm=true,objective={kind="center-regression"}},{epochs=1,objective={kind="center-regression"}}]'
    setup, _ = begin(stages, "model.backbone.norm=batch")
    state = setup.initial_state()
    at_first = statistics(state)
    steps(setup, state, 5)
    assert all(torch.equal(tensor, at_first[key]) for key, tensor in statistics(state).items())
    steps(setup, state)
    assert not any(torch.equal(tensor, at_first[key]) for key, tensor in statistics(state).items())


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_set_mode_puts_batch_norm_alone_in_evaluation(begin: Begin, freeze_norm: bool) -> None:
    setup, _ = begin("model.backbone.norm=batch", "model.backbone.spectral_norm=true")
    model = setup.initial_state().model.eval()
    set_mode(model, Stage(epochs=1, objective=CenterRegression(), freeze_norm=freeze_norm))
    for module in model.modules():
        assert module.training is not (freeze_norm and isinstance(module, torch.nn.BatchNorm2d))


def test_an_objective_gets_clean_images_where_it_asks_for_them(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Batch] = []
    original = ContrastiveDivergence.__call__

    def watched(self: ContrastiveDivergence, model: Any, batch: Batch, *rest: Any) -> Any:
        seen.append(batch)
        return original(self, model, batch, *rest)

    monkeypatch.setattr(ContrastiveDivergence, "__call__", watched)
    for clean in ("true", "false"):
        setup, _ = begin(f"stages.0.objective.clean_positive={clean}", "data.crop_padding=2", "data.flip=true", "data.noise_std=0.0")
        steps(setup, setup.initial_state())
    asked, not_asked = seen
    assert not_asked.clean is None and asked.clean is not None
    assert torch.equal(asked.images, not_asked.images)
    originals = to_model(setup.dataset.train.images).flatten(1)
    at = (asked.clean.flatten(1)[:, None] == originals).all(2)
    assert at.any(1).all() and not (asked.images.flatten(1)[:, None] == originals).all(2).any(1).all()
    assert all((setup.dataset.train.labels[row] == label).any() for row, label in zip(at, asked.labels, strict=True))


def test_batch_norm_of_features_is_frozen_too() -> None:
    """A backbone of another package may have it."""
    model = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(4)), torch.nn.Linear(4, 2))
    set_mode(model, Stage(epochs=1, objective=CenterRegression(), freeze_norm=True))
    assert [model.training, model.backbone.get_submodule("1").training] == [True, False]
