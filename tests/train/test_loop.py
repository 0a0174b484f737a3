"""The loop: what it writes, what it keeps, how it resumes, and what it does when training runs away."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from trainings import Begin, contents, write_digits

from gmmcli.errors import CheckpointError, DivergedError
from gmmcli.run import Run
from gmmcli.train.guard import GuardedStep
from gmmcli.train.health import ChainWatch
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup, training_step
from gmmcli.types import to_model

DIS = 'stages=[{epochs=2,objective={kind="center-regression"}}]'
GEN = 'stages=[{epochs=2,objective={kind="contrastive-divergence",margin=2.0}}]'
JOINT = """stages=[{epochs=1,objective={kind="center-regression"}},
                   {epochs=1,ramp_epochs=1,objective={kind="contrastive-divergence",margin=2.0}}]"""
TWO = 'stages=[{epochs=1,objective={kind="center-regression"}},{epochs=1,objective={kind="center-regression"}}]'
FROZEN = """stages=[{epochs=1,objective={kind="center-regression"}},
                    {epochs=1,freeze_norm=true,objective={kind="contrastive-divergence",margin=2.0,clean_positive=true}}]"""
GAUSSIAN = ("chains.start.kind=class-gaussian", "chains.start.rank=5", "chains.sampler={kind='fixed-length',n_steps=2,noise_std=0.01}")
RUNAWAY = """stages=[{epochs=1,objective={kind="center-regression"}},
                     {epochs=1,objective={kind="contrastive-divergence",beta=1e6,margin=2.0}}]"""
"""Five sane steps, then losses of -1e8, whatever the learning rate."""
PAST_ITS_BEST = (DIS, "optim.learning_rate=0.01", "optim.milestones=[1]", "optim.decay=30.0", "guard.max_loss=1e30", "log.validate_every=1")
"""Learns for an epoch, then ruins itself: the best validation accuracy lies well before the end."""
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
ROLLBACK = 'guard.on_divergence="rollback"'


def trained(setup: Setup, run: Run, resume: bool = False) -> Run:
    train(setup, run, resume=resume, quiet=True)
    return run


def cut_at(run: Run, step: int, folder: Path) -> Run:
    """A copy of a run as a crash after this step's checkpoint would have left it, its metrics a little ahead."""
    copy = Run(shutil.copytree(run.path, folder / f"cut-{step}"))
    for checkpoint in copy.checkpoints:
        if checkpoint.step > step:
            checkpoint.remove()
    return copy


def without_clock(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "images_per_sec"} for line in lines]


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


EVERY_LINE = {"step", "epoch", "stage", "lr", "loss", "accuracy", "grad_norm", "images_per_sec"}
CHAINS = {"energy_data", "energy_model", "energy_start", "moved", "still", "descending"}


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ((DIS,), EVERY_LINE | {"energy_data"}),
        ((GEN,), EVERY_LINE | CHAINS | {"below_bound"}),
        ((GEN, "stages.0.objective.margin=0.0"), EVERY_LINE | CHAINS),
        ((GEN, "chains.sampler.n_steps=1"), EVERY_LINE | CHAINS - {"descending"} | {"below_bound"}),
        (("model.head.kind=linear", "stages.0.objective.kind=cross-entropy"), EVERY_LINE | {"energy_data"}),
    ],
)
def test_every_metrics_line_has_its_keys_and_finite_values(begin: Begin, overrides: tuple[str, ...], keys: set[str]) -> None:
    lines = trained(*begin(*overrides)).metrics()
    assert [set(line) for line in lines] == [keys] * len(lines)
    assert all(torch.isfinite(torch.tensor(list(line.values()))).all() for line in lines)
    assert all(0 <= line.get(share, 0) <= 1 for line in lines for share in ("accuracy", "below_bound", "descending", "still"))


def test_metrics_lines_say_step_epoch_stage_and_rate(begin: Begin) -> None:
    lines = trained(*begin(JOINT, "log.every=3", "optim.warmup_steps=10")).metrics()
    assert [line["step"] for line in lines] == [3, *range(5, 11)]  # the last step always, and all around the switch of stages
    assert [line["epoch"] for line in lines] == [line["step"] / 5 for line in lines]
    assert [line["stage"] for line in lines] == [0, 0, 1, 1, 1, 1, 1]
    assert [line["lr"] for line in lines] == pytest.approx([line["step"] * 1e-4 for line in lines])


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


def test_moved_is_the_steps_length_over_the_pixels(begin: Begin) -> None:
    """One step of length 0.2 over 64 pixels, unclamped or nearly so: far below, and every chain counts as still."""
    length = "chains.sampler={kind='fixed-length',n_steps=1,step_size=%s}"
    start = ("chains.start.kind=class-gaussian", "chains.start.rank=1")
    for step_size, still in ((0.2, 0.0), (0.01, 1.0)):
        lines = [line for line in trained(*begin(length % step_size, *start)).metrics() if "loss" in line]
        assert all(0.5 * step_size / 8 < line["moved"] <= 1.0001 * step_size / 8 for line in lines)  # on black a chain meets the clamp
        assert [line["still"] for line in lines] == [still] * 5


DEAD = "chains.sampler.step_size=1e-9"


def test_chains_that_do_not_move_are_said_once_and_put_on_record(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(*begin(GEN, DEAD))
    events = [line for line in run.metrics() if "event" in line]
    assert [(event["step"], event["event"]) for event in events] == [(5, "chains")]
    assert events[0]["reason"].startswith("100% of the chains no longer move")
    assert [line["still"] for line in run.metrics() if "loss" in line] == [1.0] * 10
    said = [line for line in capsys.readouterr().err.splitlines() if "chains" in line]
    assert said == [f"gmmc: step 5: {events[0]['reason']}"]  # quiet or not
    assert run.provenance["status"] == "finished"


def test_only_every_logged_line_counts(begin: Begin) -> None:
    """Around a switch each step is logged; the watch has the patience of five regular lines."""
    stages = GEN.replace("epochs=2", "epochs=6")
    events = [line["step"] for line in trained(*begin(stages, DEAD, "log.every=3")).metrics() if "event" in line]
    assert events == [15]


@pytest.mark.parametrize("overrides", [(GEN,), (GEN, "chains.sampler={kind='fixed-length'}", "chains.start.kind=class-gaussian")])
def test_chains_that_move_are_nothing_to_warn_of(begin: Begin, overrides: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(*begin(*overrides))
    assert not [line for line in run.metrics() if "event" in line]
    assert max(line["still"] for line in run.metrics()) < 0.5
    assert capsys.readouterr().err == ""


def test_a_discriminative_training_has_no_chains_to_warn_of(begin: Begin) -> None:
    assert not [line for line in trained(*begin(DIS, DEAD)).metrics() if "event" in line]


@pytest.mark.parametrize(
    ("overrides", "compared"),
    [
        ((GEN,), True),
        (("stages.0.objective={kind='jem'}", "chains.target.kind=marginal"), False),
        (("stages.0.objective={kind='jem'}", "chains.target.kind=marginal", "model.head.kind=linear"), False),
        ((GEN, "stages.0.objective.margin=0.0", "model.head.kind=linear", "chains.target.kind=conditional"), False),
    ],
)
def test_energies_are_compared_only_where_they_are_squared_distances(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], compared: bool
) -> None:
    asked: list[bool] = []

    class Watch(ChainWatch):
        def __init__(self, never_negative: bool) -> None:
            asked.append(never_negative)
            super().__init__(never_negative)

    monkeypatch.setattr("gmmcli.train.loop.ChainWatch", Watch)
    trained(*begin(*overrides))
    assert asked == [compared]


def test_a_warning_beyond_the_checkpoint_is_not_there_twice_after_a_resume(begin: Begin, tmp_path: Path) -> None:
    run = trained(*begin(GEN, DEAD, "log.checkpoint_every=1"))
    cut = cut_at(run, 3, tmp_path)
    trained(Setup.prepare(cut.recipe), cut, resume=True)
    assert [line["step"] for line in cut.metrics() if "event" in line] == [8]  # five lines of its own
    assert contents(cut.checkpoint()) == contents(run.checkpoint())


def test_previews_are_pictures_of_the_buffer(begin: Begin) -> None:
    run = trained(*begin("log.preview_every=2"))
    files = sorted((run.path / "samples").iterdir())
    assert [file.name for file in files] == ["preview-00000002.png", "preview-00000004.png", "preview-00000005.png"]
    pictures = [Image.open(file).convert("RGB") for file in files]
    assert all(picture.size > (10 * 48, 10 * 48) for picture in pictures)
    assert pictures[0].tobytes() != pictures[1].tobytes()


@pytest.mark.parametrize(("target", "named"), [("conditional", True), ("marginal", False)])
def test_previews_name_no_class_where_chains_have_none(begin: Begin, monkeypatch: pytest.MonkeyPatch, target: str, named: bool) -> None:
    rows: list[str] = []
    monkeypatch.setattr("gmmcli.train.loop.save_grid", lambda drawn, *rest: rows.extend(name for name, _ in drawn))
    trained(*begin(f"chains.target.kind={target}", "log.preview_every=5"))
    assert len(rows) == 10
    assert rows == [str(k) if named else "" for k in range(10)]


def test_a_training_without_chains_draws_no_previews(begin: Begin) -> None:
    run = trained(*begin(DIS, "log.preview_every=2"))
    assert not (run.path / "samples").exists()
    assert not run.checkpoint().has("buffer")


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


@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_rollback_across_a_switch_goes_on_with_the_optimiser_of_the_step(begin: Begin, step: int) -> None:
    setup, run = begin(TWO, 'stages.1.optim={kind="sgd",learning_rate=0.01,ema_decay=0.5}', "log.checkpoint_every=1")
    train(setup, run, quiet=True)
    state = setup.restored(next(c for c in run.checkpoints if c.step == step))
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    while state.step < setup.n_steps:
        training_step(setup, state, update)
    again = state.save(Run.create(run.recipe, run.path.parent, []), setup.dataset)
    assert contents(again) == contents(run.checkpoint())


def test_a_training_that_rolls_back_over_a_switch_ends(begin: Begin) -> None:
    runaway = 'stages.1.optim={kind="sgd",learning_rate=1e30,ema_decay=0.5}'
    run = trained(*begin(TWO, runaway, ROLLBACK, "guard.lr_factor=1e-32", "log.checkpoint_every=4"))
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["to_step"]) for e in events] == [("rollback", 4)]
    assert events[0]["step"] > 6
    assert run.checkpoint().step == 10
    assert all(bool(tensor.isfinite().all()) for part in ("model", "weights") for tensor in run.checkpoint().tensors(part).values())


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


def test_provenance_tells_how_it_ended_and_what_it_took(begin: Begin) -> None:
    setup, run = begin()
    assert run.provenance["status"] == "created"
    run.describe(wall_time_s=1000.0)  # spent before a stop
    trained(setup, run, resume=True)
    facts = run.provenance
    assert facts["status"] == "finished"
    assert facts["device"] == "cpu"
    assert 1000 <= facts["wall_time_s"] < 1100
    assert facts["peak_memory_mb"] > 0
    assert {"argv", "git", "versions", "created"} <= set(facts)


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


def test_divergence_stops_with_the_last_good_checkpoint_kept(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, "log.checkpoint_every=2")
    with pytest.raises(DivergedError, match="step 6"):
        train(setup, run, quiet=True)
    assert run.provenance["status"] == "diverged"
    last = run.metrics()[-1]
    assert (last["step"], last["event"]) == (6, "diverged")
    assert "step 6" in last["reason"]
    assert [c.step for c in run.checkpoints] == [2, 4]
    sane = trained(*begin(JOINT, "log.checkpoint_every=2"))
    reopened = run.model()
    for key, tensor in sane.checkpoints[1].tensors("model").items():
        assert torch.equal(reopened.state_dict()[key], tensor)
    assert torch.isfinite(reopened(torch.zeros(2, 1, 8, 8))).all()
    assert torch.isfinite(run.buffer().images).all()


def test_a_learning_rate_too_high_diverges(begin: Begin) -> None:
    setup, run = begin(GEN, "optim.learning_rate=30.0", "stages.0.objective.margin=0.0")
    with pytest.raises(DivergedError, match=r"diverged at step [2-5]"):
        train(setup, run, quiet=True)
    assert run.checkpoints == []


def test_a_rollback_with_a_lower_rate_reaches_the_end(begin: Begin) -> None:
    run = trained(*begin("optim.learning_rate=30.0", ROLLBACK, "guard.lr_factor=1e-4"))
    assert run.provenance["status"] == "finished"
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["to_step"], e["rollbacks"], e["lr_factor"]) for e in events] == [("rollback", 0, 1, 1e-4)]
    assert events[0]["step"] > 1
    after = run.metrics()[run.metrics().index(events[0]) + 1 :]
    assert [line["step"] for line in after] == [1, 2, 3, 4, 5]
    assert [line["lr"] for line in after] == pytest.approx([30.0 * 1e-4] * 5)
    assert run.checkpoint().progress["rollbacks"] == 1


def test_rollbacks_go_further_back_and_run_out(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_rollbacks=2", "log.checkpoint_every=1")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    events = [line for line in run.metrics() if "event" in line]
    assert [(e["event"], e["step"]) for e in events] == [("rollback", 6), ("rollback", 6), ("diverged", 6)]
    assert [e["to_step"] for e in events[:-1]] == [5, 4]  # not twice to the state that led here
    assert [e["lr_factor"] for e in events[:-1]] == [0.5, 0.25]
    assert run.provenance["status"] == "diverged"


def test_a_rollback_without_checkpoints_starts_over_with_other_chains(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_rollbacks=1", "guard.lr_factor=1.0")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    lines = run.metrics()
    at = next(i for i, line in enumerate(lines) if "event" in line)
    assert lines[at]["to_step"] == 0
    first, second = lines[0], lines[at + 1]
    assert (first["step"], second["step"]) == (1, 1)
    assert first["lr"] == second["lr"]
    assert first["loss"] != second["loss"]  # the same weights on the same images, under other noise


def test_a_run_that_rolled_back_resumes_bit_for_bit(begin: Begin, tmp_path: Path) -> None:
    overrides = ("optim.learning_rate=30.0", ROLLBACK, "guard.lr_factor=1e-4", "log.checkpoint_every=2")
    run = trained(*begin(*overrides))
    cut = cut_at(run, 4, tmp_path)
    trained(Setup.prepare(cut.recipe), cut, resume=True)
    assert cut.checkpoint().progress["rollbacks"] == 1
    assert contents(cut.checkpoint()) == contents(run.checkpoint())
    assert [line for line in cut.metrics() if "event" in line] == [line for line in run.metrics() if "event" in line]


def test_another_seed_trains_other_weights_and_the_same_seed_the_same(begin: Begin) -> None:
    first, again, other = (contents(trained(*begin(seed)).checkpoint()) for seed in ("seed=1", "seed=1", "seed=2"))
    assert first == again
    assert first != other
