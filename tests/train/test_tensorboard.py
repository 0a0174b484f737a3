"""TensorBoard's files, as TensorBoard itself reads them."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trainings import DIS, GEN, ROLLBACK, RUNAWAY, Begin, Small, contents, cut_at, trained

from gmmcli.errors import DivergedError, MissingPartError
from gmmcli.run import Run
from gmmcli.train.setup import Setup
from gmmcli.upkeep import faults, litter, repair, thin

pytestmark = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard (the dev extra)")

ON = "log.tensorboard=true"


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every figure by step, after TensorBoard has dropped what a resume or a rollback replaced."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def of_lines(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """The same of lines of metrics.jsonl; float32 is what TensorBoard keeps."""
    keys = dict.fromkeys(key for line in lines for key in line if key != "step" and "event" not in line)
    return {key: [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines if line.get(key) is not None] for key in keys}


def test_the_figures_are_those_of_the_log(begin: Begin) -> None:
    run = trained(*begin(GEN, ON, "log.validate_every=5"))
    assert scalars(run) == of_lines(run.metrics())
    assert {"loss", "energy_model", "validation_accuracy", "grad_norm"} <= set(scalars(run))


def test_a_resume_leaves_no_step_twice_and_may_begin_to_write(begin: Begin, tmp_path: Path) -> None:
    run = trained(*begin(DIS, ON, "log.checkpoint_every=1", "log.validate_every=1"))
    cut = cut_at(run, 6, tmp_path)
    trained(Setup.prepare(cut.recipe), cut, resume=True)
    assert scalars(cut) == of_lines(cut.metrics())
    assert [step for step, _ in scalars(cut)["validation_accuracy"]] == [*range(1, 11)]
    without = cut_at(trained(*begin(DIS, "log.checkpoint_every=1")), 7, tmp_path)
    recipe = without.path / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("tensorboard = false", "tensorboard = true"))
    trained(Setup.prepare(Run(without.path).recipe), Run(without.path), resume=True)
    assert [step for step, _ in scalars(without)["loss"]] == [8, 9, 10]
    assert contents(without.checkpoint()) == contents(run.checkpoint())


def test_a_rollback_takes_back_the_steps_that_diverged(begin: Begin) -> None:
    setup, run = begin(RUNAWAY, ROLLBACK, ON, "guard.max_rollbacks=1", "log.checkpoint_every=5")
    with pytest.raises(DivergedError):
        trained(setup, run)
    steps = [step for step, _ in scalars(run)["loss"]]
    assert len([line for line in run.metrics() if line.get("event") == "rollback"]) == 1
    assert len([line for line in run.metrics() if "loss" in line]) > len(steps)
    assert steps == sorted(set(steps))


def test_values_that_are_not_finite_are_left_out(begin: Begin) -> None:
    setup, run = begin(DIS, ON, "guard.max_loss=1e-9")
    with pytest.raises(DivergedError):
        trained(setup, run)
    assert scalars(run) == of_lines([line for line in run.metrics() if "event" not in line])


def test_without_the_key_and_in_other_processes_nothing_is_written(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(*begin(DIS))
    assert not (run.path / "tensorboard").exists()
    monkeypatch.setattr("gmmcli.train.log.world", lambda: SimpleNamespace(is_main=False))
    run = trained(*begin(DIS, ON))
    assert not (run.path / "tensorboard").exists()


def test_a_run_with_these_files_is_whole_and_keeps_them(begin: Begin) -> None:
    run = trained(*begin(DIS, ON, "log.checkpoint_every=5"))
    files = sorted((run.path / "tensorboard").iterdir())
    assert files and all(path.name.startswith("events.out.tfevents.") for path in files)
    assert faults(run) == litter(run) == repair(run) == []
    thin(run, 1)
    assert sorted((run.path / "tensorboard").iterdir()) == files


def test_without_the_package_a_training_does_not_begin(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(ON)
    monkeypatch.setattr("gmmcli.train.tensorboard.find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=r"^log\.tensorboard needs the package tensorboard$") as error:
        Setup.prepare(recipe)
    assert error.value.exit_code == 4
    assert "gmmcli[tensorboard]" in error.value.hint
    Setup.prepare(small())
