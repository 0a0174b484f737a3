"""``--dry-run``: sizes worked out by hand, and nothing left behind."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainings import Begin, Small

from gmmcli.data import mapped
from gmmcli.recipe import Recipe
from gmmcli.train.loop import train
from gmmcli.train.needs import Needs
from gmmcli.train.plan import LIMIT, Plan
from gmmcli.train.plan import plan as plan_in
from gmmcli.train.setup import Setup


def plan(recipe: Recipe) -> Plan:
    return plan_in(recipe, Path("runs"))


def conv(inputs: int, outputs: int, size: int) -> int:
    return inputs * outputs * size * size + outputs


BLOCKS = [  # WRN-10-1: one block a group; a shortcut of its own where the width changes
    conv(16, 16, 3) + conv(16, 16, 3),
    conv(16, 32, 3) + conv(32, 32, 3) + conv(16, 32, 1),
    conv(32, 64, 3) + conv(64, 64, 3) + conv(32, 64, 1),
]
PARAMETERS = conv(1, 16, 3) + sum(BLOCKS)
N_TENSORS = 2 * (1 + 2 + 3 + 3)
MEANS = 10 * 64
PIXELS = 100 * 8 * 8


@pytest.mark.parametrize(
    ("overrides", "parameters", "tensors", "fixed", "buffer"),
    [
        ((), PARAMETERS, N_TENSORS, MEANS, 4 * PIXELS),
        (("chains.dtype=uint8",), PARAMETERS, N_TENSORS, MEANS, PIXELS),
        (("chains.dtype=float16",), PARAMETERS, N_TENSORS, MEANS, 2 * PIXELS),
        (("model.head.kind=lda",), PARAMETERS + MEANS, N_TENSORS + 1, 0, 4 * PIXELS),
        (("stages.0.objective.kind=center-regression",), PARAMETERS, N_TENSORS, MEANS, 0),
        (("stages.0.objective.kind=cross-entropy", "model.head.kind=linear"), PARAMETERS + MEANS + 10, N_TENSORS + 2, 0, 0),
    ],
)
def test_sizes_are_those_worked_out_by_hand(
    small: Small, overrides: tuple[str, ...], parameters: int, tensors: int, fixed: int, buffer: int
) -> None:
    planned = plan(small(*overrides))
    assert planned.parameters == parameters
    assert planned.model_bytes == 4 * (parameters + fixed)
    assert planned.optimizer_bytes == 4 * (2 * parameters + tensors)  # two moments a weight, one counter a tensor
    assert planned.buffer_bytes == buffer
    assert planned.n_steps == 5
    assert planned.device == "cpu"


ONE_OF_EACH = """stages=[{epochs=1,objective={kind="center-regression"}},
                         {epochs=1,objective={kind="center-regression"},optim={kind="sgd",ema_decay=0.9,sam_rho=0.1}},
                         {epochs=1,objective={kind="center-regression"},optim={kind="sgd",momentum=0.0}}]"""


def test_memory_is_that_of_the_largest_optimiser_and_of_any_average(small: Small) -> None:
    planned = plan(small(ONE_OF_EACH))
    assert planned.optimizer_bytes == 4 * (2 * PARAMETERS + N_TENSORS)
    assert planned.average_bytes == planned.model_bytes == 4 * (PARAMETERS + MEANS)
    assert len(planned.step_seconds) == 3
    assert plan(small("optim.kind=sgd")).optimizer_bytes == 4 * PARAMETERS
    assert plan(small("optim.kind=sgd", "optim.momentum=0.0")).optimizer_bytes == plan(small()).average_bytes == 0


def test_a_checkpoint_is_as_large_as_the_plan_says(begin: Begin) -> None:
    overrides = ("chains.start.kind=class-gaussian", "chains.start.rank=3", "optim.ema_decay=0.9", "log.checkpoint_every=2", "log.keep=1")
    setup, run = begin(*overrides)
    planned = plan(setup.recipe)
    assert planned.starts_bytes == 4 * 10 * (1 + 3) * 64
    train(setup, run, quiet=True)
    (checkpoint,) = run.checkpoints
    saved = sum(file.stat().st_size for file in checkpoint.path.glob("*.safetensors"))
    assert saved == pytest.approx(planned.checkpoint_bytes, rel=0.05)  # names of tensors, and the recipe
    assert planned.checkpoints == 3  # one kept, the best, the next one
    assert plan(replace(setup.recipe, log=replace(setup.recipe.log, checkpoint_every=0))).checkpoints == 1


def test_images_in_a_file_take_no_memory(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(small()).images_bytes == 80 * 64
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")  # uncompressed: nothing is written
    planned = plan(small())
    assert planned.images_bytes == 0
    assert "memory, images     read from a file" in planned.text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_peak_is_what_linux_says_of_the_process(small: Small) -> None:
    planned = plan(small())
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert planned.peak_bytes == pytest.approx(int(kibibytes) * 1024, rel=0.02)


def test_several_devices_share_the_work(small: Small) -> None:
    planned = plan(small())
    seconds = planned.document()["values"]["total_seconds_on"]
    assert seconds == {str(n): planned.total_seconds / n for n in (2, 4, 8)}
    assert f"2, 4, 8 devices    {planned.total_seconds / 2:.0f} s, " in planned.text()


def test_nothing_is_written(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GMMC_RUNS_DIR", str(tmp_path / "runs"))
    plan(small("log.checkpoint_every=1", "log.preview_every=1"))
    assert list(tmp_path.iterdir()) == []


def test_time_is_measured_for_each_stage_and_added_up(small: Small) -> None:
    stages = """stages=[{epochs=3,objective={kind="center-regression"}},{epochs=2,objective={kind="contrastive-divergence",margin=2.0}}]"""
    planned = plan(small(stages))
    first, second = planned.step_seconds
    assert first > 0
    assert second > 0
    assert planned.n_steps == 25
    assert planned.total_seconds == pytest.approx(15 * first + 10 * second)


def test_the_text_starts_with_the_recipe_and_tells_every_figure(small: Small) -> None:
    planned = plan(small())
    recipe, figures = planned.text().split("\n\ndevice  ")
    assert Recipe.loads(recipe) == small()
    for words in (f"{PARAMETERS:,}", "0.3 MiB", "0.6 MiB", "5 steps", "(stage 0)"):
        assert words in figures


def test_the_figures_fit_a_narrow_terminal_word_by_word(small: Small) -> None:
    planned = plan(small())
    wide, narrow = (planned.text(width).removeprefix(planned.recipe.dumps()) for width in (None, 40))
    assert max(map(len, wide.splitlines())) > 40 >= max(map(len, narrow.splitlines()))
    assert narrow.split() == wide.split()


def test_the_document_is_json(small: Small) -> None:
    planned = plan(small())
    document = json.loads(json.dumps(planned.document()))
    assert document["command"] == "train --dry-run"
    assert document["values"]["parameters"] == PARAMETERS
    assert document["recipe"]["model"]["backbone"]["depth"] == 10
    assert "recipe" not in document["values"]


def test_a_step_that_takes_too_long_is_not_measured_and_the_rest_is_as_if_it_were(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = plan(small(ONE_OF_EACH))
    monkeypatch.setattr("gmmcli.train.needs.operations_a_second", lambda device, precision: 1e3)
    monkeypatch.setattr("gmmcli.train.plan.training_step", lambda *words: pytest.fail("a step was taken"))
    planned = plan(small(ONE_OF_EACH))
    assert planned.step_seconds == Needs.of(Setup.prepare(small(ONE_OF_EACH))).step_seconds
    assert min(planned.step_seconds) > LIMIT
    assert set(planned.measured) == {False}
    assert set(measured.measured) == {True}
    for name in ("optimizer_bytes", "average_bytes", "model_bytes", "checkpoint_bytes"):
        assert getattr(planned, name) == getattr(measured, name)
    assert " at least, not measured (stage 0)" in planned.text()
    assert f"at least {planned.total_seconds / 86400:.0f} days" in planned.text()


def test_what_takes_more_than_a_year_is_planned_with_a_warning(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.train.needs.operations_a_second", lambda device, precision: 1.0)
    (warning,) = plan(small("stages.0.epochs=50")).warnings
    assert re.fullmatch(r"small takes at least [\d,]+ days on this cpu", warning)
