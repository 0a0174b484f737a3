import os
import shutil
from pathlib import Path

import pytest
from running import begun, described, line, logged, previewed, trained

from gmmcli.errors import RecipeError, RunError
from gmmcli.watch.watched import LAST_EVENTS, Watched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return begun(tmp_path)


def test_a_run_that_has_logged_nothing(path: Path) -> None:
    watched = Watched(path)
    with trained(path):
        assert watched.refresh() == []
    assert (watched.status, watched.ended, watched.step, watched.total) == ("running", False, 0, 100)
    assert watched.seconds_left is watched.preview is None


def test_what_is_logged_is_taken_up_look_by_look(path: Path) -> None:
    watched = Watched(path)
    logged(path, line(5))
    with trained(path):
        assert watched.refresh() == [line(5)]
        logged(path, line(10), {"step": 10, "validation_accuracy": 0.5})
        watched.refresh()
        assert watched.refresh() == []
    assert watched.last == line(10)
    assert watched.validated == {"step": 10, "validation_accuracy": 0.5}
    assert watched.curves["loss"].points == [(5, 20.0), (10, 10.0)]
    assert watched.curves["validation_accuracy"].points == [(10, 0.5)]
    assert watched.curves["sample_distance"].points == []


def test_the_time_left_is_told_by_the_speed_of_the_present_stage(path: Path) -> None:
    watched = Watched(path)
    logged(path, *(line(step, images_per_sec=1000.0) for step in (5, 10, 15, 20)), line(25, images_per_sec=2.0))
    with trained(path):
        watched.refresh()
    assert watched.seconds_left == 75 * 10 / 2
    watched.refresh()
    assert watched.seconds_left is None  # nobody trains it any more


@pytest.mark.parametrize("facts", [{"steps": None}, {"steps": "many"}])
def test_an_earlier_run_does_not_know_its_steps(facts: dict[str, object], tmp_path: Path) -> None:
    watched = Watched(begun(tmp_path, **facts))
    logged(watched.path, line(5))
    with trained(watched.path):
        watched.refresh()
    assert watched.total is watched.seconds_left is None


def test_a_rollback_takes_the_curves_back_and_is_an_event(path: Path) -> None:
    watched = Watched(path)
    event = {"step": 12, "event": "rollback", "to_step": 10, "rollbacks": 1, "lr_factor": 0.5, "reason": "loss 1e+09"}
    logged(path, line(9), line(10), line(12, loss=1e9), event, line(11))
    watched.refresh()
    assert [step for step, _ in watched.curves["loss"].points] == [9, 10, 11]
    assert [*watched.events] == [event]
    logged(path, *({"step": step, "event": "chains", "reason": ""} for step in range(100)))
    watched.refresh()
    assert [one["step"] for one in watched.events] == [*range(100 - LAST_EVENTS, 100)]


def test_after_a_resume_the_curves_are_those_of_the_new_log(path: Path) -> None:
    watched = Watched(path)
    logged(path, line(1), line(2), line(3), {"step": 3, "event": "chains", "reason": ""})
    watched.refresh()
    (path / "metrics.jsonl").unlink()
    logged(path, line(1))
    watched.refresh()
    assert ([step for step, _ in watched.curves["loss"].points], watched.last, [*watched.events]) == ([1], line(1), [])


def test_values_that_are_none_are_passed_over(path: Path) -> None:
    watched = Watched(path)
    strange = [
        {"step": "one", "loss": 1.0},
        {"loss": 2.0},
        line(3, loss=None, images_per_sec=None),
        line(4, loss="x", accuracy=float("nan")),
    ]
    logged(path, *strange)
    with trained(path):
        watched.refresh()
    assert watched.curves["loss"].points == []
    assert [step for step, _ in watched.curves["energy_data"].points] == [3, 4]
    assert watched.seconds_left == 96 * 10 / 50


def test_the_newest_preview_is_the_one_that_was_drawn_last(path: Path) -> None:
    watched = Watched(path)
    before, after = previewed(path, 60), previewed(path, 50)  # of a rollback
    os.utime(before, (1, 1))
    watched.refresh()
    assert watched.preview == after


@pytest.mark.parametrize(("recorded", "status"), [("running", "killed"), ("finished", "finished"), ("interrupted", "interrupted")])
def test_a_run_has_ended_when_no_process_trains_it(recorded: str, status: str, path: Path) -> None:
    watched = Watched(path)
    described(path, status=recorded)
    with trained(path):
        watched.refresh()
        assert (watched.ended, watched.status) == (False, recorded)
    watched.refresh()
    assert (watched.ended, watched.status) == (True, status)


def test_a_run_that_is_deleted_while_it_is_watched_is_one_sentence(path: Path) -> None:
    watched = Watched(path)
    watched.refresh()
    shutil.rmtree(path)
    with pytest.raises(RunError, match=r"^\S+-small was removed or moved while it was watched$"):
        watched.refresh()


def test_damaged_files_are_sentences_too(path: Path) -> None:
    (path / "provenance.json").write_text("{")
    with pytest.raises(RunError, match=r"provenance\.json is damaged"):
        Watched(path).refresh()
    described(path)
    (path / "recipe.toml").write_text("a = ")
    with pytest.raises(RecipeError, match=r"^recipe\.toml is not valid TOML"):
        Watched(path).refresh()


def test_the_document_is_what_is_known(path: Path) -> None:
    watched = Watched(path)
    logged(path, line(10), {"step": 10, "validation_accuracy": 0.5}, {"step": 10, "event": "chains", "reason": "still"})
    picture = previewed(path, 10)
    with trained(path):
        watched.refresh()
    assert watched.document() == {
        "path": str(path),
        "status": "running",
        "trained_now": True,
        "step": 10,
        "steps": 100,
        "seconds_left": 18,
        "last_metrics": line(10),
        "last_validation": {"step": 10, "validation_accuracy": 0.5},
        "events": [{"step": 10, "event": "chains", "reason": "still"}],
        "preview": str(picture),
    }
