"""The loop: what it writes, what it keeps, and how it resumes."""

from pathlib import Path

import pytest
import torch
from trainings import DIS, GEN, JOINT, PAST_ITS_BEST, RUNAWAY, Begin, contents, cut_at, trained, without_clock, write_digits

from gmmcli.errors import CheckpointError, DivergedError
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from gmmcli.types import to_model

FROZEN = """stages=[{epochs=1,objective={kind="center-regression"}},
                    {epochs=1,freeze_norm=true,objective={kind="contrastive-divergence",margin=2.0,clean_positive=true}}]"""
GAUSSIAN = ("chains.start.kind=class-gaussian", "chains.start.rank=5", "chains.sampler={kind='fixed-length',n_steps=2,noise_std=0.01}")
EVERYTHING = (
    "optim.kind=sgd",
    "optim.learning_rate=0.01",
    "optim.nesterov=true",
    "optim.weight_decay=5e-4",
    "optim.sam_rho=0.2",
    "optim.sam_adaptive=true",
    "optim.ema_decay=0.8",
    "model.backbone.norm=batch",
)


@pytest.mark.parametrize(
    "overrides",
    [
        (JOINT,),
        (JOINT, 'model.backbone.norm="batch"', "data.crop_padding=1", "data.flip=true"),
        (DIS, 'model.backbone.norm="batch"', "optim.schedule=cosine", "optim.warmup_steps=4"),
        (GEN, "chains.sampler.noise_std=0.01", "chains.dtype=uint8", "chains.target.kind=injected-latent"),
        (GEN, *EVERYTHING),
        (JOINT, *EVERYTHING, 'stages.1.optim={kind="adam",learning_rate=1e-3,weight_decay=0.1,sam_rho=0.1,ema_decay=0.5}'),
        (JOINT, "stages.0.optim.kind=sgd", "stages.0.optim.learning_rate=0.01", "stages.0.optim.momentum=0.0", "optim.ema_decay=0.9"),
        (FROZEN, 'model.backbone.norm="batch"', "data.crop_padding=1", "data.flip=true", *GAUSSIAN, "chains.reinit_prob=0.3"),
        (FROZEN, 'model.backbone.norm="batch"', "model.backbone.spectral_norm=true", "model.backbone.downsample=avg-pool", *GAUSSIAN),
    ],
    ids=[
        "joint",
        "joint, batch norm, augmented",
        "discriminative, batch norm",
        "generative, noisy",
        "everything of an optimiser",
        "everything, and a switch",
        "a switch from nothing to an average",
        "frozen norm, clean positives, Gaussian starts, steps of one length",
        "the same under spectral norm",
    ],
)
def test_five_steps_and_a_resume_and_five_steps_are_ten_steps(begin: Begin, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    straight = trained(*begin(*overrides)).checkpoint()
    stepwise = trained(*begin(*overrides, "log.checkpoint_every=1", "log.validate_every=3"))
    assert [c.step for c in stepwise.checkpoints] == list(range(1, 11))
    assert contents(stepwise.checkpoint()) == contents(straight)  # to save and to validate changes nothing
    assert contents(stepwise.checkpoint()) != contents(stepwise.checkpoints[-2])
    for step in (3, 5, 7):  # before, at and after the boundary of joint training's stages
        cut = cut_at(stepwise, step, tmp_path)
        trained(Setup.prepare(cut.recipe), cut, resume=True)
        assert contents(cut.checkpoint()) == contents(straight)
        assert cut.checkpoint().progress == stepwise.checkpoint().progress
        assert cut.card() == stepwise.card()
        assert without_clock(cut.metrics()) == without_clock(stepwise.metrics())


def test_to_resume_before_the_first_checkpoint_is_to_start(begin: Begin) -> None:
    setup, run = begin()
    run.log({"step": 3, "loss": 1.0})
    trained(setup, run, resume=True)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 5]
    assert contents(run.checkpoint()) == contents(trained(*begin()).checkpoint())


def test_to_resume_a_finished_run_changes_nothing(begin: Begin) -> None:
    run = trained(*begin())
    before, card = contents(run.checkpoint()), run.card()
    trained(Setup.prepare(run.recipe), run, resume=True)
    assert (contents(run.checkpoint()), run.card()) == (before, card)


def test_to_resume_from_a_damaged_checkpoint_is_an_error(begin: Begin) -> None:
    run = trained(*begin())
    file = run.checkpoint().path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        trained(Setup.prepare(run.recipe), run, resume=True)


THREE = """stages=[{epochs=2,objective={kind="center-regression"}},
                   {epochs=4,objective={kind="cross-entropy"}},
                   {epochs=1,objective={kind="center-regression"}}]"""


@pytest.mark.parametrize(("every", "others"), [(1000, []), (9, [9, 18, 27])])
def test_the_last_step_of_a_stage_and_seven_of_the_next_are_logged(begin: Begin, every: int, others: list[int]) -> None:
    run = trained(*begin(THREE, f"log.every={every}"))
    around = [*range(10, 18), *range(30, 36)]  # ten steps, twenty steps, and five
    assert [line["step"] for line in run.metrics()] == sorted({*around, *others})


def test_a_training_of_one_stage_has_no_switch_to_log(begin: Begin) -> None:
    assert [line["step"] for line in trained(*begin(DIS, "log.every=1000")).metrics()] == [10]


@pytest.mark.parametrize("every", [1000, 1])
def test_the_step_that_diverged_is_logged_once_before_its_event(begin: Begin, every: int) -> None:
    setup, run = begin(GEN, "optim.learning_rate=1e30", "stages.0.objective.margin=0.0", f"log.every={every}")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    text = (run.path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    *before, line, event = run.metrics()
    assert event["event"] == "diverged"
    assert line["step"] == event["step"]
    assert line["loss"] is None or line["grad_norm"] is None  # not finite, and JSON has no word for it
    assert [line["step"] for line in before] == list(range(1, line["step"])) * (every == 1)


def test_what_is_finite_at_divergence_is_logged_as_it_is(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, "log.every=1000")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    *_, line, event = run.metrics()
    assert line["step"] == event["step"] == 6
    assert abs(line["loss"]) > 1e4
    assert None not in line.values()


def test_the_newest_and_the_best_checkpoints_stay(begin: Begin) -> None:
    run = trained(*begin(*PAST_ITS_BEST, "log.checkpoint_every=1", "log.keep=2"))
    accuracies = {line["step"]: line["validation_accuracy"] for line in run.metrics() if "validation_accuracy" in line}
    assert list(accuracies) == list(range(1, 11))
    best = max(accuracies, key=lambda step: (accuracies[step], -step))
    assert best < 9, "this test needs a best step that would be pruned"
    assert [c.step for c in run.checkpoints] == [best, 9, 10]
    progress = run.checkpoint().progress
    assert (progress["best_step"], progress["best_accuracy"]) == (best, accuracies[best])
    assert run.checkpoint(best=True).step == best
    images, labels = Setup.prepare(run.recipe).dataset.validation.batch()
    with torch.no_grad():
        said = run.model(best=True)(to_model(images)).argmax(1)
    assert float((said == labels).float().mean()) == accuracies[best]


def test_what_is_validated_published_and_given_its_gamma2_is_the_average(begin: Begin) -> None:
    run = trained(*begin(*PAST_ITS_BEST, "optim.ema_decay=0.9", "log.keep=1"))
    accuracies = {line["step"]: line["validation_accuracy"] for line in run.metrics() if "validation_accuracy" in line}
    dataset = Setup.prepare(run.recipe).dataset
    for best in (True, False):
        model, checkpoint = run.model(best), run.checkpoint(best)
        weights = checkpoint.tensors("weights")
        assert not torch.equal(weights["backbone.stem.weight"], model.state_dict()["backbone.stem.weight"])
        with torch.no_grad():
            said = model(to_model(dataset.validation.images)).argmax(1)
            distances = (model.features(to_model(dataset.train.images)) - model.means[dataset.train.labels]).double()
        assert float((said == dataset.validation.labels).float().mean()) == accuracies[checkpoint.step]
        assert model.gamma2 == pytest.approx(float(distances.square().sum() / distances.numel()), rel=1e-5)


@pytest.mark.parametrize("head", ["max-mahalanobis", "lda"])
def test_the_last_and_the_best_model_carry_their_own_gamma2(begin: Begin, head: str) -> None:
    run = trained(*begin(*PAST_ITS_BEST, f"model.head.kind={head}", "log.keep=1"))
    images, labels = Setup.prepare(run.recipe).dataset.train.batch()
    assert run.checkpoint().step != run.checkpoint(best=True).step
    found = []
    for best in (False, True):
        model = run.model(best)
        with torch.no_grad():
            distances = (model.features(to_model(images)) - model.means[labels]).double()
        assert model.gamma2 == pytest.approx(float(distances.square().sum() / distances.numel()), rel=1e-5)
        assert run.card(best).gamma2 == model.gamma2
        found.append(model.gamma2)
    assert found[0] != found[1]


def test_a_linear_head_has_unit_variance(begin: Begin) -> None:
    assert trained(*begin("model.head.kind=linear", "stages.0.objective.kind=cross-entropy")).card().gamma2 == 1.0


def test_validation_and_test_images_never_touch_the_weights(begin: Begin, tmp_path: Path) -> None:
    spoilt = write_digits(tmp_path / "spoilt.npz", spoil=True)
    plain = trained(*begin(JOINT, 'model.backbone.norm="batch"'))
    other = trained(*begin(JOINT, 'model.backbone.norm="batch"', f"data.source.path='{spoilt}'", "log.validate_every=1"))
    assert contents(other.checkpoint()) == contents(plain.checkpoint())
    assert other.card().gamma2 == plain.card().gamma2


LINEAR = ("model.head.kind=linear", "chains.target.kind=conditional", "stages.0.objective.margin=0.0")


@pytest.mark.parametrize(
    ("overrides", "stored"),
    [
        (("model.head.kind=lda",), torch.float32),
        (("model.head.kind=linear", "stages.0.objective.kind=cross-entropy"), None),
        (LINEAR, torch.float32),
        (("chains.target.kind=conditional",), torch.float32),
        (("chains.target.kind=injected-latent", "chains.target.std=0.1"), torch.float32),
        (("chains.dtype=uint8",), torch.uint8),
        (("chains.start.kind=class-gaussian", "chains.sampler.kind=fixed-length"), torch.float32),
        (("chains.start.kind=gaussian", "chains.sampler.clip=0.01", "chains.dtype=uint8"), torch.uint8),
        (("model.backbone.spectral_norm=true", "model.backbone.downsample=avg-pool"), torch.float32),
        (("stages.0.objective.clean_positive=true", "data.flip=true"), torch.float32),
        (("chains.dtype=float16",), torch.float16),
        (("compute.channels_last=false", "model.backbone.norm=group", "model.backbone.init=torch"), torch.float32),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, tuple) else "",
)
def test_every_kind_of_model_target_and_buffer_trains(begin: Begin, overrides: tuple[str, ...], stored: torch.dtype | None) -> None:
    setup, run = begin(*overrides)
    start = {name: parameter.detach().clone() for name, parameter in setup.initial_state().model.named_parameters()}
    state = train(setup, run, quiet=True)
    assert state.step == 5
    assert all(parameter.isfinite().all() for parameter in state.model.parameters())
    assert all(not torch.equal(parameter, start[name]) for name, parameter in state.model.named_parameters())
    assert run.checkpoint().has("buffer") == (stored is not None)
    if stored is not None:
        assert run.buffer().images.dtype == stored
        assert run.buffer().images.shape == (10, 10, 1, 8, 8)


def test_another_seed_trains_other_weights_and_the_same_seed_the_same(begin: Begin) -> None:
    first, again, other = (contents(trained(*begin(seed)).checkpoint()) for seed in ("seed=1", "seed=1", "seed=2"))
    assert first == again
    assert first != other


def test_a_training_that_cannot_begin_has_failed(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin(DIS)

    def full(setup: Setup) -> None:
        raise MemoryError

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(Setup, "initial_state", full)
        train(setup, run, quiet=True)
    assert run.status == "failed"
    train(setup, run, resume=True, quiet=True)
    assert run.status == "finished"
