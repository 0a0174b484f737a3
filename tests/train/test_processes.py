"""Several processes train one model: that of one process, where nothing is drawn at random."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import JOINT, ROLLBACK, RUNAWAY, Begin, Small, contents, cut_at, trained, without_clock

from gmmcli.core.compute import Compute
from gmmcli.core.energy import joint_energy
from gmmcli.core.starts import GaussianStarts
from gmmcli.distributed import world
from gmmcli.errors import DivergedError, GmmcError, RecipeError, StoppedError
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.train import loop, step, validate
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState, of_each_image
from gmmcli.train.step import StepReport, training_step
from ranks import on_ranks

UNDRAWN = (
    "data.noise_std=0.0",
    "chains.start.kind=class-gaussian",
    "chains.start.rank=3",
    "chains.reinit_prob=1.0",
    "chains.target.kind=conditional",
    "chains.sampler.noise_std=0.0",
)
"""A training in which only the starts of chains are random."""
KINDS = {
    "discriminative": ("stages.0.objective.kind=center-regression",),
    "generative with a margin": ("stages.0.objective.margin=1.02", "stages.0.objective.beta=1.0", "optim.learning_rate=0.01"),
    "sharpness-aware": ("stages.0.objective.kind=center-regression", "optim.kind=sgd", "optim.learning_rate=1e-3", "optim.sam_rho=0.05"),
    "jem, clean and augmented images": (
        "stages.0.objective={kind='jem',clean_positive=true,separate_norm=true}",
        "chains.target.kind=marginal",
    ),
}


def stepped(setup: Setup, n_steps: int, *, undrawn: bool = False) -> tuple[TrainState, list[Any]]:
    """The state after some steps, and the losses that the guard saw; undrawn, chains start from the mean of their class."""
    state = setup.initial_state()
    if undrawn and state.chains is not None and isinstance(starts := state.chains.starts, GaussianStarts):
        state.chains = replace(state.chains, starts=replace(starts, components=torch.zeros_like(starts.components)))
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    losses = []
    for _ in range(n_steps):
        report = training_step(setup, state, update)
        losses.append([float(update.loss), float(update.grad_norm), *(float(part) for part in report.loss.parts.values())])
    return state, losses


def curve(setup: Setup) -> list[Any]:
    return stepped(setup, 8, undrawn=True)[1]


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_two_processes_have_the_losses_of_one_with_the_batch_of_both(begin: Begin, overrides: tuple[str, ...]) -> None:
    setup, _ = begin(*UNDRAWN, *overrides, "stages.0.epochs=2")
    alone, together = torch.tensor(curve(setup)), torch.tensor(on_ranks(2, curve, setup))
    assert torch.equal(together[0, :, :2], together[1, :, :2])  # loss and gradient norm, which all have
    assert not torch.allclose(together[0, :, 2:], together[1, :, 2:], rtol=1e-2)  # the parts, which each has of its own images
    torch.testing.assert_close(together.mean(0), alone, rtol=1e-3, atol=1e-4)


def digests(state: TrainState) -> list[bytes]:
    """Everything that all processes must have alike, bit for bit."""
    moments = [value for entry in state.optimizer.state.values() for value in entry.values()]
    return [tensor.numpy().tobytes() for tensor in (*state.model.state_dict().values(), *state.published.state_dict().values(), *moments)]


def common_and_own(setup: Setup) -> tuple[list[bytes], tuple[int, ...], bytes]:
    state, _ = stepped(setup, 4)
    assert state.chains is not None
    images = state.chains.buffer.images
    return digests(state), tuple(images.shape), images[:, :3].numpy().tobytes()


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.crop_padding=1", "data.flip=true", "chains.dtype=uint8", "model.backbone.norm=batch"),
        (
            "optim.kind=sgd",
            "optim.sam_rho=0.1",
            "optim.ema_decay=0.9",
            "model.backbone.spectral_norm=true",
            "chains.sampler.noise_std=0.01",
        ),
    ],
    ids=["batch norm", "sharpness, average, spectral norm"],
)
def test_all_processes_have_one_model_and_each_chains_of_its_own(begin: Begin, overrides: tuple[str, ...]) -> None:
    setup, _ = begin(*overrides, "data.batch_size=18")
    models, shapes, buffers = zip(*on_ranks(3, common_and_own, setup), strict=True)
    assert models[0] == models[1] == models[2]
    assert [shape[:2] for shape in shapes] == [(10, 3), (10, 3), (10, 4)]  # slots of each class, ten in all
    assert len(set(buffers)) == 3


def names_and_starts(setup: Setup) -> tuple[list[Any], bytes]:
    """The names of a step's random streams, and the first slots before it."""
    names = []

    def named(device: torch.device, *key: int | str) -> torch.Generator:
        names.append(key)
        return stream(device, *key)

    step.stream = named  # in this process alone, which is a fork
    state = setup.initial_state()
    assert state.chains is not None
    starts = state.chains.buffer.images[:, :3].numpy().tobytes()
    training_step(setup, state, GuardedStep(state.optimizer, 1e30, setup.device))
    return names, starts


def test_processes_draw_other_numbers_and_one_alone_those_that_it_always_drew(begin: Begin) -> None:
    setup, _ = begin()
    (alone, _), (first, starts), (second, others) = *on_ranks(1, names_and_starts, setup), *on_ranks(2, names_and_starts, setup)
    assert alone == [(1, 0, "step", 0)]
    assert (first, second) == ([(1, 0, "step", 0, "rank", 0)], [(1, 0, "step", 0, "rank", 1)])
    assert starts != others


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ((), r"data\.batch_size 16 does not divide by 3 processes; the nearest that does is 15"),
        (("data.batch_size=15", "chains.buffer_size=20"), r"chains\.buffer_size 20 has 2 slots of a class, too few for 3 processes"),
    ],
)
def test_a_recipe_that_cannot_be_divided_is_one_sentence(small: Small, overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        on_ranks(3, Setup.prepare, small(*overrides))


def precision(recipe: Recipe) -> str:
    """That of the training, where each process would choose another."""
    Compute.resolved = lambda table, device: replace(table, precision=("fp32", "bf16")[world().rank])  # in this process alone, a fork
    return Setup.prepare(recipe).recipe.compute.precision


def test_all_processes_take_the_precision_of_the_main_one(small: Small) -> None:
    assert on_ranks(2, precision, small("compute.precision=auto")) == ["fp32", "fp32"]


def spoilt(setup: Setup) -> tuple[list[bytes], bool, str]:
    """Two sound steps, then one in which the last process alone has an infinite loss, then a sound one."""
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e4, setup.device)
    for bound in (1e4, 1e4, 0.0 if world().rank == world().size - 1 else 1e4, 1e4):
        update.max_loss = bound
        training_step(setup, state, update)
        if bool(update.healthy):
            sound = digests(state)
    assert digests(state) == sound
    with pytest.raises(DivergedError) as caught:
        update.raise_if_diverged(3)
    return sound, bool(update.healthy), str(caught.value)


def test_where_one_process_is_unhealthy_all_skip_alike(begin: Begin) -> None:
    first, second = on_ranks(2, spoilt, begin("optim.ema_decay=0.9")[0])
    assert first == second
    assert not first[1]


def test_a_rollback_takes_all_processes_back(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_rollbacks=2", "log.checkpoint_every=1")
    with pytest.raises(DivergedError, match="step 6"):
        on_ranks(2, lambda: loop.train(setup, run, quiet=True))
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["step"], e.get("to_step")) for e in events] == [("rollback", 6, 5), ("rollback", 6, 4), ("diverged", 6, None)]
    assert run.provenance["status"] == "diverged"


def in_processes(n: int, setup: Setup, run: Run, *, resume: bool = False) -> Run:
    on_ranks(n, lambda: trained(setup, run, resume) and None)
    return run


EVERYTHING = (JOINT, "data.batch_size=12", "log.checkpoint_every=2", "optim.ema_decay=0.8", "model.backbone.norm=batch", "data.flip=true")


@pytest.mark.parametrize("n", [2, 3])
def test_a_resume_by_as_many_processes_is_bit_identical(begin: Begin, tmp_path: Path, n: int) -> None:
    setup, run = begin(*EVERYTHING)
    in_processes(n, setup, run)
    names = sorted(file.name for file in run.checkpoint().path.glob("buffer*"))
    assert names == [f"buffer-r{rank:02d}.safetensors" for rank in range(n)]
    assert (run.provenance["status"], run.provenance["processes"]) == ("finished", n)
    cut = in_processes(n, setup, cut_at(run, 8, tmp_path), resume=True)
    assert contents(cut.checkpoint()) == contents(run.checkpoint())
    assert cut.checkpoint().progress == run.checkpoint().progress
    assert cut.card() == run.card()
    assert without_clock(cut.metrics()) == without_clock(run.metrics())


def own_slots(setup: Setup, run: Run) -> bytes:
    chains = setup.restored(run.checkpoint()).chains
    assert chains is not None
    return chains.buffer.images.movedim(1, 0).numpy().tobytes()


def test_a_buffer_is_divided_anew_among_other_numbers_of_processes(begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    setup, run = begin(*EVERYTHING)
    in_processes(2, setup, run)
    for before, n, at in ((2, 3, 6), (3, 1, 8)):
        run = cut_at(run, at, tmp_path)
        whole = run.buffer().images
        assert whole.shape == (10, 10, 1, 8, 8)
        assert b"".join(on_ranks(n, own_slots, setup, run)) == whole.movedim(1, 0).numpy().tobytes()
        in_processes(n, setup, run, resume=True)
        assert f"processes: {n}, before: {before}; random numbers" in capfd.readouterr().err
        assert run.checkpoint().progress["processes"] == n
        assert run.provenance["status"] == "finished"
    assert run.checkpoint().shards("buffer") == ["buffer"]


def disturb_at_step_4(disturb: Callable[[], None], setup: Setup, run: Run) -> str:
    """What a training says that is stopped, where something happens to the second process before its fourth step."""

    def disturbed(setup: Setup, state: TrainState, update: GuardedStep) -> StepReport:
        if world().rank == 1 and state.step == 3:
            disturb()
        return training_step(setup, state, update)

    loop.training_step = disturbed  # in this process alone, which is a fork
    with pytest.raises(StoppedError) as caught:
        loop.train(setup, run, quiet=True)
    return caught.value.message


def test_a_signal_to_one_process_stops_all_at_the_same_step(begin: Begin) -> None:
    setup, run = begin()
    said = on_ranks(2, disturb_at_step_4, lambda: os.kill(os.getpid(), signal.SIGTERM), setup, run)
    assert said == [f"{who} after step 4; the state is saved" for who in ("a signal to another process", "SIGTERM")]
    assert run.provenance["status"] == "interrupted"
    assert [checkpoint.step for checkpoint in run.checkpoints] == [4]
    in_processes(2, setup, run, resume=True)
    assert contents(run.checkpoint()) == contents(in_processes(2, *begin()).checkpoint())


@pytest.mark.parametrize(("disturb", "patience"), [(lambda: os._exit(1), 30), (lambda: time.sleep(60), 3)], ids=["dies", "hangs"])
def test_a_process_that_dies_or_hangs_ends_the_training_in_one_sentence(begin: Begin, disturb: Callable[[], None], patience: int) -> None:
    setup, run = begin("log.checkpoint_every=1")
    with pytest.raises(GmmcError, match=rf"^another process ended or did not answer for {patience} s$"):
        on_ranks(2, disturb_at_step_4, disturb, setup, run, timeout=float(patience))
    assert run.provenance["status"] == "failed"
    assert [checkpoint.step for checkpoint in run.checkpoints][:2] == [1, 2]  # the third may still have been being written


def figures(setup: Setup, run: Run) -> tuple[float, float | None, float | None, list[float]]:
    validate.CHUNK = 7  # three chunks of samples; in this process alone, which is a fork
    state = setup.initial_state()
    validate.validate(setup, state, run, setup.recipe.stages[0], validate.Distance("mean", lambda images: float(images.double().mean())))
    state.estimate_gamma2(setup.loader.split)
    two = setup.validation.take(torch.arange(2))  # fewer than processes
    return state.best_accuracy, state.best_distance, state.model.gamma2, of_each_image(state.model, two, joint_energy).tolist()


def test_validation_and_gamma2_are_those_of_one_process(begin: Begin) -> None:
    setup, run = begin("log.validate_every=5", "log.validate_samples=2", "data.batch_size=18", "chains.fresh_steps=2")
    (alone,), together = on_ranks(1, figures, setup, run), on_ranks(3, figures, setup, run)
    assert together[0] == together[1] == together[2]
    assert together[0][:2] == alone[:2]
    assert together[0][2] == pytest.approx(alone[2], rel=1e-6)
    assert together[0][3] == pytest.approx(alone[3], rel=1e-6)
