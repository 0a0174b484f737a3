"""The training log: its lines, and warnings about chains."""

from pathlib import Path

import pytest
import torch
from trainings import DEAD, DIS, GEN, JOINT, ROLLBACK, RUNAWAY, Begin, contents, cut_at, trained

from gmmcli.errors import DivergedError
from gmmcli.train.health import ChainWatch
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

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


def test_moved_is_the_steps_length_over_the_pixels(begin: Begin) -> None:
    """One step of length 0.2 over 64 pixels, unclamped or nearly so: far below, and every chain counts as still."""
    length = "chains.sampler={kind='fixed-length',n_steps=1,step_size=%s}"
    start = ("chains.start.kind=class-gaussian", "chains.start.rank=1")
    for step_size, still in ((0.2, 0.0), (0.01, 1.0)):
        lines = [line for line in trained(*begin(length % step_size, *start)).metrics() if "loss" in line]
        assert all(0.5 * step_size / 8 < line["moved"] <= 1.0001 * step_size / 8 for line in lines)  # on black a chain meets the clamp
        assert [line["still"] for line in lines] == [still] * 5


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
        def __init__(self, recognised: float | None) -> None:
            asked.append(recognised is not None)
            super().__init__(recognised)

    monkeypatch.setattr("gmmcli.train.log.ChainWatch", Watch)
    trained(*begin(*overrides))
    assert asked == [compared]


def test_a_warning_beyond_the_checkpoint_is_not_there_twice_after_a_resume(begin: Begin, tmp_path: Path) -> None:
    run = trained(*begin(GEN, DEAD, "log.checkpoint_every=1"))
    cut = cut_at(run, 3, tmp_path)
    trained(Setup.prepare(cut.recipe), cut, resume=True)
    assert [line["step"] for line in cut.metrics() if "event" in line] == [8]  # five lines of its own
    assert contents(cut.checkpoint()) == contents(run.checkpoint())


def test_a_loss_near_the_guards_limit_is_said_once_even_after_a_resume(
    begin: Begin, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = trained(*begin(GEN, "guard.max_loss=500.0", "log.checkpoint_every=1"))  # the loss begins at C^2 / 2 = 50
    events = [line for line in run.metrics() if "event" in line]
    assert [(event["step"], event["event"]) for event in events] == [(1, "unstable")]
    assert f"gmmc: step 1: {events[0]['reason']}\n" in capsys.readouterr().err
    cut = cut_at(run, 3, tmp_path)
    trained(Setup.prepare(cut.recipe), cut, resume=True)
    assert [line for line in cut.metrics() if "event" in line] == events


def test_every_attempt_after_a_rollback_warns_anew(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, "guard.max_loss=500.0", "guard.max_rollbacks=1", "log.checkpoint_every=0")
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    events = [(line["step"], line["event"]) for line in run.metrics() if "event" in line]
    assert events == [(1, "unstable"), (6, "rollback"), (1, "unstable"), (6, "diverged")]


def test_a_divergence_out_of_nothing_is_not_warned_of_when_it_is_there(begin: Begin) -> None:
    setup, run = begin(RUNAWAY)
    with pytest.raises(DivergedError):
        train(setup, run, quiet=True)
    assert [line["event"] for line in run.metrics() if "event" in line] == ["diverged"]
