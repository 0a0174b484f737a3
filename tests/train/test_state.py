"""What training changes goes to disk and comes back bit for bit."""

from pathlib import Path

import pytest
import torch
from trainings import Begin

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.buffer import ReplayBuffer
from gmmcli.errors import CheckpointError, RunError
from gmmcli.model_card import ModelCard, without_paths
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import training_step


def after(setup: Setup, n_steps: int) -> TrainState:
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    for _ in range(n_steps):
        training_step(setup, state, update)
    return state


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("chains.dtype=uint8", "model.backbone.norm=batch"),
        ("compute.channels_last=false",),
        ("stages.0.objective.kind=center-regression",),
        ("optim.kind=sgd", "optim.nesterov=true", "optim.ema_decay=0.9", "model.backbone.norm=batch"),
        ("optim.kind=sgd", "optim.momentum=0.0"),
        ("chains.start.kind=class-gaussian", "chains.sampler.kind=fixed-length"),
        ("chains.start.kind=gaussian", "chains.start.rank=3"),
        ("model.backbone.spectral_norm=true", "model.backbone.downsample=avg-pool"),
    ],
)
def test_saved_and_restored_is_the_same_state(begin: Begin, overrides: tuple[str, ...]) -> None:
    setup, run = begin(*overrides)
    state = after(setup, 3)
    state.rollbacks, state.best_accuracy, state.best_step = 2, 0.5, 1
    saved = state.save(run, setup.dataset)
    back = setup.restored(saved)
    assert (back.step, back.rollbacks, back.best_accuracy, back.best_step) == (3, 2, 0.5, 1)
    for mine, other in ((state.model, back.model), (state.published, back.published)):
        theirs = other.state_dict()
        assert all(same(tensor, theirs[key]) for key, tensor in mine.state_dict().items())
    for mine, other in zip(state.model.parameters(), back.model.parameters(), strict=True):
        moments, restored = state.optimizer.state[mine], back.optimizer.state[other]
        assert moments.keys() == restored.keys()
        assert all(same(moments[key], restored[key]) for key in moments)  # strides too: the fused kernel walks them together
    assert (state.chains is None) == (back.chains is None)
    if state.chains is not None and back.chains is not None:
        assert same(state.chains.buffer.images, back.chains.buffer.images)
        starts, restored = state.chains.starts.tensors(), back.chains.starts.tensors()
        assert starts.keys() == restored.keys()
        assert all(same(tensor, restored[key]) for key, tensor in starts.items())
        assert back.chains.reinit_prob == state.chains.reinit_prob


@pytest.mark.parametrize(("kind", "shape"), [("uniform", None), ("gaussian", (1, 7, 64)), ("class-gaussian", (10, 7, 64))])
def test_a_checkpoint_keeps_where_chains_set_out(begin: Begin, kind: str, shape: tuple[int, ...] | None) -> None:
    setup, run = begin(f"chains.start.kind={kind}", *(["chains.start.rank=7"] if shape else []))
    state = after(setup, 1)
    assert state.chains is not None
    saved = state.save(run, setup.dataset)
    assert saved.has("starts") == (shape is not None)
    if shape:
        assert tuple(saved.tensors("starts")["components"].shape) == shape
    labels = torch.arange(10)
    one, other = (starts(labels, torch.Generator().manual_seed(1)) for starts in (state.chains.starts, run.starts()))
    assert torch.equal(one, other)


def test_training_on_never_writes_into_the_checkpoint_it_came_from(begin: Begin) -> None:
    setup, run = begin()
    saved = after(setup, 2).save(run, setup.dataset)
    before = (saved.path / "buffer.safetensors").read_bytes()
    state = setup.initial_state()
    state.restore(saved, run.recipe, 10)
    assert state.chains is not None
    state.chains.buffer.images.fill_(0.5)
    assert (saved.path / "buffer.safetensors").read_bytes() == before
    saved.remove()  # a pruned checkpoint takes nothing from a buffer that is mapped from it
    assert bool((state.chains.buffer.images == 0.5).all())


def test_a_restored_state_draws_no_buffer_and_fits_no_starts(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take longer than to read a large checkpoint, and a buffer's memory twice."""
    setup, run = begin("chains.start.kind=gaussian", "chains.start.rank=3")
    saved = after(setup, 2).save(run, setup.dataset)
    again = Setup.prepare(run.recipe)
    monkeypatch.setattr(ReplayBuffer, "started", None)
    state = again.restored(saved)
    assert "starts" not in vars(again)
    assert state.chains is not None
    assert torch.equal(state.chains.buffer.images, run.buffer().images)


def test_a_buffer_outlives_the_checkpoint_it_was_mapped_from(begin: Begin) -> None:
    setup, run = begin()
    original = after(setup, 2)
    saved = original.save(run, setup.dataset)
    state = setup.initial_state()
    state.restore(saved, run.recipe, 10)
    saved.remove()
    assert original.chains is not None
    assert state.chains is not None
    assert torch.equal(state.chains.buffer.images, original.chains.buffer.images)


def test_the_model_file_is_the_average_and_the_weights_have_their_own(begin: Begin) -> None:
    setup, run = begin("optim.ema_decay=0.9")
    state = after(setup, 3)
    saved = state.save(run, setup.dataset)
    assert state.average is not None
    for part, model in (("model", state.average), ("weights", state.model)):
        assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in saved.tensors(part).items())
    opened = run.model().state_dict()
    assert all(torch.equal(tensor, opened[key]) for key, tensor in state.average.state_dict().items())
    assert not torch.equal(opened["backbone.stem.weight"], state.model.state_dict()["backbone.stem.weight"])


def test_without_an_average_there_are_no_weights_beside_the_model(begin: Begin) -> None:
    setup, run = begin()
    assert not after(setup, 1).save(run, setup.dataset).has("weights")


def test_a_checkpoint_at_a_switch_keeps_the_optimiser_that_led_there(begin: Begin) -> None:
    setup, run = begin(
        'stages=[{epochs=1,objective={kind="center-regression"}},{epochs=1,objective={kind="center-regression"},optim={kind="sgd"}}]'
    )
    kinds = []
    for n in (4, 5, 6):
        saved = after(setup, n).save(run, setup.dataset)
        back = setup.restored(saved)
        kinds.append(type(back.optimizer))
        assert back.save(run, setup.dataset).path == saved.path
        assert len(saved.tensors("optimizer")) == sum(map(len, back.optimizer.state.values()))
    assert kinds == [torch.optim.Adam, torch.optim.Adam, torch.optim.SGD]


def test_the_model_file_carries_its_card(begin: Begin) -> None:
    setup, run = begin()
    state = after(setup, 1)
    state.model.gamma2 = 0.25
    saved = state.save(run, setup.dataset)
    card = ModelCard.parse(saved.metadata("model"), "here")
    assert card == ModelCard(without_paths(run.recipe), tuple("0123456789"), (1, 8, 8), 0.25)


@pytest.mark.parametrize(("best", "left"), [(0, [4, 5]), (1, [1, 4, 5]), (4, [4, 5])])
def test_old_checkpoints_go_but_the_best(begin: Begin, best: int, left: list[int]) -> None:
    setup, run = begin("log.keep=2", "stages.0.objective.kind=center-regression")
    state = after(setup, 1)
    for state.step in range(1, 6):
        state.best_step = min(best, state.step)
        state.save(run, setup.dataset)
    assert [c.step for c in run.checkpoints] == left
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == [f"step-{step:08d}" for step in left]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "weights.safetensors", "optimizer.safetensors", "buffer.safetensors", "progress.json"]
)
@pytest.mark.parametrize("harm", ["flip", "lose"])
def test_a_damaged_file_is_an_error_and_not_a_state(begin: Begin, name: str, harm: str) -> None:
    setup, run = begin("optim.ema_decay=0.9")
    saved = after(setup, 1).save(run, setup.dataset)
    file: Path = saved.path / name
    if harm == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=name):
        setup.initial_state().restore(Checkpoint(saved.path), run.recipe, 10)


@pytest.mark.parametrize(("step_size", "resumes"), [(None, True), (0.1, True), (0.25, False)])
def test_a_run_whose_sampler_tuned_its_step_size_is_not_resumed(begin: Begin, step_size: float | None, resumes: bool) -> None:
    """Versions that could tune it kept it beside the buffer, tuned or not; the recipe here says 0.1."""
    setup, run = begin()
    saved = after(setup, 1).save(run, setup.dataset)
    kept = {} if step_size is None else {"step_size": torch.tensor(step_size)}
    parts = {"model": Part(dict(saved.tensors("model")), saved.metadata("model")), "buffer": Part({**saved.tensors("buffer"), **kept}, {})}
    old = Checkpoint.save(run.path / "old", 1, parts, saved.progress)
    if resumes:
        assert setup.restored(old).step == 1
    else:
        with pytest.raises(RunError, match=r"chains\.sampler\.adapt, which was removed"):
            setup.restored(old)
