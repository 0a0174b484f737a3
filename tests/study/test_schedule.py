"""A study's children: most here end as a script says; those of the last tests are real, but forked from one that has imported torch."""

import json
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import forked
import pytest
from animals import write_animals
from trainings import contents

from gmmcli.errors import StoppedError
from gmmcli.recipe import Recipe
from gmmcli.run import Run, list_runs
from gmmcli.study.schedule import Outcome, Schedule
from gmmcli.study.spec import Training
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

EVERY_STEP = ("log.every=1", "log.checkpoint_every=2")
ASKED = ("eval calibrate", "attack cw")
ENDS = {0: "finished", 5: "diverged", 130: "interrupted"}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Three kinds of animals, a second's training."""
    return write_animals(tmp_path)


def training(recipe: Path, *overrides: str, seed: int = 1, model: str = "m", position: int = 0, asked: Sequence[str] = ASKED) -> Training:
    own = (*EVERY_STEP, *overrides, f"seed={seed}")
    words = tuple(tuple(evaluation.split()) for evaluation in asked)
    return Training(model, position, Recipe.load(recipe, own), str(recipe), own, words)


@dataclass
class Scripted(Schedule):
    """Children that end as they are told to, 0 by default, and leave behind what real ones would."""

    exits: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _gmmc(self, call: Sequence[str], log: Path) -> int:
        words = " ".join(call[: 1 if call[0] == "train" else 2])
        self.calls.append(words + " --resume" * ("--resume" in call))
        exit_code = self.exits.get(words, 0)
        assert call[-4:] == ["--runs-dir", str(self.directory), "--quiet", "--json"]
        if words == "train":
            run = self._run_of(call)
            run.describe(status=ENDS.get(exit_code, "failed"))
            if not exit_code:
                run.save_result({"command": "eval accuracy", "values": {}})
        else:
            assert Run(Path(call[call.index("--run") + 1])).recipe
        with log.open("a") as file:
            file.write(f"$ gmmc {' '.join(call)}\n" + f"gmmc: error: {words} says {exit_code}\ngmmc: a hint\n" * bool(exit_code))
        return exit_code

    def _run_of(self, call: Sequence[str]) -> Run:
        if "--resume" in call:
            return Run(Path(call[call.index("--run") + 1]))
        overrides = [value for option, value in pairwise(call) if option == "--set"]
        recipe = Recipe.load(call[1], overrides)
        precision = "bf16" if recipe.compute.precision == "auto" else recipe.compute.precision  # as training has it
        return Run.create(replace(recipe, compute=replace(recipe.compute, precision=precision)), self.directory, [])


def journal(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]


def test_a_training_is_known_by_its_recipe_though_its_run_keeps_what_auto_became(recipe: Path, tmp_path: Path) -> None:
    tasks = [training(recipe, "compute.precision=auto"), training(recipe, "compute.precision=fp32")]
    Scripted(tmp_path / "s", tasks).run("s", quiet=True)
    assert [len(list_runs(tmp_path / "s")), [line["run"] is None for line in journal(tmp_path / "s")]] == [2, [False] * 6]
    again = Scripted(tmp_path / "s", tasks)
    again.run("s", quiet=True)
    assert again.calls == []
    other = Scripted(tmp_path / "s", [training(recipe, "compute.precision=bf16", "compute.channels_last=false")])
    assert other.run_of(other.trainings[0]) is None


def test_a_training_comes_before_its_evaluations_and_each_is_done_once(recipe: Path, tmp_path: Path) -> None:
    tasks = [training(recipe), training(recipe, seed=2, asked=ASKED[:1])]
    schedule = Scripted(tmp_path / "s", tasks)
    assert schedule.n_tasks == 5
    assert [schedule.remaining(one) for one in tasks] == [[("train",), *one.evaluations] for one in tasks]
    assert list(tmp_path.glob("s")) == []  # to ask writes nothing
    done = schedule.run("a study", quiet=True)
    assert schedule.calls == ["train", "eval calibrate", "attack cw", "train", "eval calibrate"]
    assert [(one.seed, one.words[-1]) for one in done] == [(1, "train"), (1, "calibrate"), (1, "cw"), (2, "train"), (2, "calibrate")]
    assert not any(one.failed or one.exit_code or one.message for one in done)
    again = Scripted(tmp_path / "s", tasks)
    assert [again.remaining(one) for one in tasks] == [[], []]
    assert (again.run("a study", quiet=True), again.calls) == ([], [])


def test_every_command_has_a_line_in_the_journal_and_its_words_in_a_log(recipe: Path, tmp_path: Path) -> None:
    schedule = Scripted(tmp_path / "s", [training(recipe, position=3)], exits={"eval calibrate": 1})
    schedule.run("a study", quiet=True)
    (run,) = list_runs(tmp_path / "s")
    lines = journal(tmp_path / "s")
    assert [(line["run"], line["words"], line["exit"]) for line in lines] == [
        (run.id, ["train"], 0),
        (run.id, ["eval", "calibrate"], 1),
        (run.id, ["attack", "cw"], 0),
    ]
    assert all(line["seconds"] >= 0 for line in lines)
    (log,) = (tmp_path / "s" / "logs").iterdir()
    assert log.name == "03-animals-seed1.log"
    assert [line.split()[:3] for line in log.read_text().splitlines() if line.startswith("$ ")] == [
        ["$", "gmmc", "train"],
        ["$", "gmmc", "eval"],
        ["$", "gmmc", "attack"],
    ]


def test_runs_know_their_model_and_its_place(recipe: Path, tmp_path: Path) -> None:
    tasks = [training(recipe, seed=seed, model="GMMC (Gen)", position=4) for seed in (1, 2)]
    Scripted(tmp_path / "s", tasks).run("a study", quiet=True)
    facts = [(run.provenance["study_model"], run.provenance["study_position"]) for run in list_runs(tmp_path / "s")]
    assert facts == [("GMMC (Gen)", 4)] * 2


def test_a_study_that_has_grown_does_what_is_new(recipe: Path, tmp_path: Path) -> None:
    Scripted(tmp_path / "s", [training(recipe, asked=ASKED[:1])]).run("a study", quiet=True)
    grown = Scripted(tmp_path / "s", [training(recipe, model="renamed", position=1), training(recipe, seed=2, asked=())])
    grown.run("a study", quiet=True)
    assert grown.calls == ["attack cw", "train"]
    assert [run.provenance["study_model"] for run in list_runs(tmp_path / "s")] == ["renamed", "m"]


@pytest.mark.parametrize(
    ("words", "exit_code", "failed"),
    [
        (("train",), 0, False),
        (("train",), 1, True),
        (("train",), 3, True),
        (("train",), 5, False),
        (("train",), -9, True),
        (("eval", "ood"), 0, False),
        (("eval", "ood"), 1, True),
        (("eval", "ood"), 2, True),
        (("eval", "ood"), 3, False),
        (("eval", "generate"), 4, False),
        (("eval", "ood"), 5, False),
        (("eval", "ood"), -15, True),
    ],
)
def test_a_divergence_and_a_lack_of_data_are_no_failures(words: tuple[str, ...], exit_code: int, failed: bool) -> None:
    assert Outcome("m", 1, words, exit_code, "").failed is failed


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4])
def test_an_evaluation_that_did_not_end_well_is_told_and_tried_again(exit_code: int, recipe: Path, tmp_path: Path) -> None:
    schedule = Scripted(tmp_path / "s", [training(recipe)], exits={"eval calibrate": exit_code})
    done = schedule.run("a study", quiet=True)
    assert [(one.exit_code, one.message) for one in done] == [
        (0, ""),
        (exit_code, f"eval calibrate says {exit_code}"),
        (0, ""),
    ]
    again = Scripted(tmp_path / "s", [training(recipe)])
    assert again.remaining(training(recipe)) == [("eval", "calibrate")]
    assert [one.exit_code for one in again.run("a study", quiet=True)] == [0]


def test_a_training_that_diverged_is_not_evaluated_and_not_tried_again(recipe: Path, tmp_path: Path) -> None:
    tasks = [training(recipe), training(recipe, seed=2)]
    schedule = Scripted(tmp_path / "s", tasks[:1], exits={"train": 5})
    (one,) = schedule.run("a study", quiet=True)
    assert (one.words, one.exit_code, one.failed) == (("train",), 5, False)
    again = Scripted(tmp_path / "s", tasks)
    assert again.remaining(tasks[0]) == []
    again.run("a study", quiet=True)
    assert again.calls == ["train", "eval calibrate", "attack cw"]


def test_a_training_that_failed_is_not_evaluated_and_is_resumed_the_next_time(recipe: Path, tmp_path: Path) -> None:
    (one,) = Scripted(tmp_path / "s", [training(recipe)], exits={"train": 1}).run("a study", quiet=True)
    assert (one.failed, one.message) == (True, "train says 1")
    again = Scripted(tmp_path / "s", [training(recipe)])
    again.run("a study", quiet=True)
    assert again.calls == ["train --resume", "eval calibrate", "attack cw"]
    assert len(list_runs(tmp_path / "s")) == 1


def test_a_finished_training_whose_test_was_cut_off_is_resumed(recipe: Path, tmp_path: Path) -> None:
    run = Run.create(training(recipe).recipe, tmp_path / "s", [])
    run.describe(status="finished")
    assert Scripted(tmp_path / "s", [training(recipe)]).remaining(training(recipe))[0] == ("train",)
    run.save_result({"command": "eval accuracy", "values": {}})
    assert ("train",) not in Scripted(tmp_path / "s", [training(recipe)]).remaining(training(recipe))


def test_of_several_runs_of_one_recipe_the_newest_counts(recipe: Path, tmp_path: Path) -> None:
    first, second = (Run.create(training(recipe).recipe, tmp_path / "s", []) for _ in range(2))
    Run.create(training(recipe, seed=2).recipe, tmp_path / "s", [])
    schedule = Scripted(tmp_path / "s", [training(recipe)])
    found = schedule.run_of(training(recipe))
    assert found is not None
    assert found.id == second.id != first.id
    assert schedule.run_of(training(recipe, seed=3)) is None


def test_what_was_asked_of_another_run_does_not_count(recipe: Path, tmp_path: Path) -> None:
    task = training(recipe)
    Scripted(tmp_path / "s", [task]).run("a study", quiet=True)
    (old,) = list_runs(tmp_path / "s")
    old.path.rename(tmp_path / "elsewhere")
    assert Scripted(tmp_path / "s", [task]).remaining(task) == [("train",), *task.evaluations]


def test_the_last_words_are_those_of_the_command_itself(recipe: Path, tmp_path: Path) -> None:
    task = training(recipe, asked=("eval calibrate", "eval ood"))

    class Crashing(Scripted):
        def _gmmc(self, call: Sequence[str], log: Path) -> int:
            if "ood" not in call:
                return super()._gmmc(call, log)
            with log.open("a") as file:
                file.write(f"$ gmmc {' '.join(call)}\nTraceback (most recent call last):\nZeroDivisionError: a bug\n")
            return 1

    *_, calibrate, ood = Crashing(tmp_path / "s", [task], exits={"eval calibrate": 2}).run("a study", quiet=True)
    assert calibrate.message == "eval calibrate says 2"
    assert ood.message == f"see {tmp_path / 's' / 'logs' / '00-animals-seed1.log'}"


def test_a_journal_cut_short_by_a_crash_is_still_a_journal(recipe: Path, tmp_path: Path) -> None:
    task = training(recipe)
    Scripted(tmp_path / "s", [task]).run("a study", quiet=True)
    path = tmp_path / "s" / "journal.jsonl"
    path.write_text(path.read_text()[:-20])
    again = Scripted(tmp_path / "s", [task])
    again.run("a study", quiet=True)
    assert again.calls == ["attack cw"]
    assert Scripted(tmp_path / "s", [task]).remaining(task) == []


def test_what_goes_wrong_in_a_thread_goes_wrong_here(recipe: Path, tmp_path: Path) -> None:
    class Broken(Scripted):
        def _gmmc(self, call: Sequence[str], log: Path) -> int:
            raise OSError("no more processes")

    with pytest.raises(OSError, match="no more processes"):
        Broken(tmp_path / "s", [training(recipe, seed=seed) for seed in (1, 2, 3)], 2).run("a study", quiet=True)


def test_progress_is_counted_in_tasks_also_those_that_are_left_out(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = Scripted(tmp_path / "s", [training(recipe)], exits={"train": 5})
    schedule.run("a study")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("a study 3/3, ")


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_so_many_trainings_are_at_work_at_a_time(jobs: int, recipe: Path, tmp_path: Path) -> None:
    crowd, most = set[int](), [0]

    class Watched(Scripted):
        def _gmmc(self, call: Sequence[str], log: Path) -> int:
            crowd.add(threading.get_ident())
            most.append(len(crowd))
            time.sleep(0.05)
            exit_code = super()._gmmc(call, log)
            crowd.discard(threading.get_ident())
            return exit_code

    tasks = [training(recipe, seed=seed, asked=()) for seed in range(4)]
    assert len(Watched(tmp_path / "s", tasks, jobs).run("a study", quiet=True)) == 4
    assert max(most) <= jobs
    assert len(list_runs(tmp_path / "s")) == 4


def by_hand(task: Training, directory: Path) -> Run:
    """Trained and tested without a study."""
    run = Run.create(task.recipe, directory, [])
    train(Setup.prepare(task.recipe), run, quiet=True)
    run.save_result({"command": "eval accuracy", "values": {}})
    return run


def test_a_run_that_was_trained_by_hand_is_adopted(recipe: Path, tmp_path: Path) -> None:
    task = training(recipe, asked=())
    run = by_hand(task, tmp_path / "s")
    schedule = Schedule(tmp_path / "s", [task])
    assert schedule.remaining(task) == []
    assert schedule.run("a study", quiet=True) == []
    assert run.provenance["study_model"] == "m"
    assert not (tmp_path / "s" / "journal.jsonl").exists()


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that need not import torch."""
    monkeypatch.setattr("gmmcli.study.processes.subprocess", forked.SUBPROCESS)


RUNAWAY = ("stages.0.objective.margin=0.0", "optim.learning_rate=1e6", "guard.max_loss=1e3")


@pytest.mark.usefixtures("light")
def test_real_trainings_go_on_where_they_were_killed_diverge_and_are_evaluated_alike_by_one_job_and_by_two(
    recipe: Path, tmp_path: Path
) -> None:
    cut_off = training(recipe, asked=("eval ood --against uniform --score log_px",))
    runaway = training(recipe, *RUNAWAY, model="runaway", position=1, asked=("eval calibrate",))
    run = by_hand(cut_off, tmp_path / "one")
    whole = contents(run.checkpoint())
    for checkpoint in run.checkpoints[1:]:
        checkpoint.remove()
    (run.path / "results" / "eval-accuracy.json").unlink()
    run.describe(status="running")
    ends = {}
    for name, jobs in (("one", 1), ("two", 2)):
        schedule = Schedule(tmp_path / name, [cut_off, runaway], jobs)
        done = schedule.run("a study", quiet=True)
        ends[name] = {(one.model, *one.words[:2]): one.exit_code for one in done}
        assert not any(one.failed for one in done), done
        assert schedule.remaining(runaway) == []
        assert schedule.remaining(cut_off) == []
    assert ends["one"] == ends["two"]
    assert ends["one"] == {
        ("m", "train"): 0,
        ("m", "eval", "ood"): 0,
        ("runaway", "train"): 5,
    }
    resumed, begun = (Schedule(tmp_path / name, []).run_of(cut_off) for name in ("one", "two"))
    assert resumed is not None
    assert begun is not None
    assert resumed.id == run.id
    assert contents(resumed.checkpoint()) == contents(begun.checkpoint()) == whole
    results = [{stem: result["values"] for stem, result in one.results().items()} for one in (resumed, begun)]
    assert results[0] == results[1]
    assert results[0].keys() == {"eval-accuracy", "eval-ood-uniform-log_px"}


@pytest.mark.usefixtures("light")
def test_a_signal_stops_the_children_and_the_same_call_goes_on(recipe: Path, tmp_path: Path) -> None:
    tasks = [training(recipe, "stages.0.epochs=100000", seed=seed) for seed in (1, 2, 3)]

    def under_way() -> bool:
        return sum(len(run.metrics()) > 2 for run in list_runs(tmp_path / "s")) == 2

    before = signal.getsignal(signal.SIGTERM)
    with forked.stopped(signal.SIGTERM, under_way), pytest.raises(StoppedError, match="SIGTERM") as error:
        Schedule(tmp_path / "s", tasks, 2).run("a study", quiet=True)
    assert error.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    runs = list_runs(tmp_path / "s")
    assert [run.recipe.seed for run in runs] in ([1, 2], [2, 1])  # the third was not begun
    assert [run.provenance["status"] for run in runs] == ["interrupted"] * 2
    assert all(run.checkpoint().step == run.metrics()[-1]["step"] for run in runs)
    assert [(line["words"], line["exit"]) for line in journal(tmp_path / "s")] == [(["train"], 143)] * 2
    again = Scripted(tmp_path / "s", tasks)
    again.run("a study", quiet=True)
    assert again.calls == ["train --resume", *ASKED, "train --resume", *ASKED, "train", *ASKED]
