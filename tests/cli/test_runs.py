import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from animals import Gmmc, Trained

from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.run_folder import kept_elsewhere


def test_ls_shows_status_step_and_accuracy(gmmc: Gmmc, trained: Trained) -> None:
    (line,) = gmmc("runs", "ls", "--runs-dir", trained.runs_dir).stdout.splitlines()
    accuracy = trained.answer["values"]["accuracy"]
    assert re.split(" {2,}", line) == [trained.answer["run"], "finished", "step 6", "seed 1", f"test accuracy {accuracy:.2%}"]


def test_ls_shows_runs_that_have_saved_nothing_yet(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run.create(Recipe.load(trained.recipe), tmp_path, [])
    (row,) = json.loads(gmmc("runs", "ls", "--runs-dir", tmp_path, "--json").stdout)["values"]
    assert row == {
        "run": run.id,
        "recipe": "animals",
        "seed": 1,
        "status": "created",
        "step": None,
        "accuracy": None,
        "created": run.provenance["created"],
        "hours": None,
        "device": None,
        "study": None,
        "changed": {},
    }
    assert "no checkpoint" in gmmc("runs", "ls", "--runs-dir", tmp_path).stdout


def test_ls_of_no_runs_is_empty(gmmc: Gmmc, tmp_path: Path) -> None:
    listed = gmmc("runs", "ls", "--runs-dir", tmp_path / "none")
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "no runs in" in listed.stderr


def test_ls_looks_where_the_environment_says(gmmc: Gmmc, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMMC_RUNS_DIR", str(trained.runs_dir))
    assert trained.answer["run"] in gmmc("runs", "ls").stdout


def test_ls_shows_the_accuracy_that_was_measured_of_a_run_that_takes_no_files(
    gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    elsewhere = kept_elsewhere(trained.path) / "results"
    elsewhere.mkdir(parents=True)
    (elsewhere / "eval-accuracy.json").write_text('{"command": "eval accuracy", "values": {"accuracy": 0.125}}')
    assert "test accuracy 12.50%" in gmmc("runs", "ls", "--runs-dir", trained.runs_dir).stdout
    monkeypatch.setenv("GMMC_RUNS_DIR", str(trained.runs_dir))
    assert f"newest result: {elsewhere / 'eval-accuracy.json'}" in gmmc().stdout


def test_show_has_provenance_checkpoints_and_last_metrics(gmmc: Gmmc, trained: Trained) -> None:
    values = json.loads(gmmc("runs", "show", "--run", trained.path, "--json").stdout)["values"]
    run = Run(trained.path)
    assert values["path"] == str(trained.path)
    assert values["provenance"] == run.provenance
    assert values["checkpoints"] == [checkpoint.step for checkpoint in run.checkpoints]
    assert values["last_metrics"]["step"] == 6


def test_show_in_words(gmmc: Gmmc, trained: Trained) -> None:
    lines = gmmc("runs", "show", "--runs-dir", trained.runs_dir).stdout.splitlines()
    assert lines[:2] == [f"path: {trained.path}", "provenance:"]
    assert "  status: finished" in lines


def test_show_makes_control_characters_visible(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained.path, tmp_path / "a\x1b[31mb")))
    run.describe(device="c\x07pu")
    shown = gmmc("runs", "show", run.path).stdout
    assert f"path: {tmp_path}/a\\x1b[31mb" in shown and "device: c\\x07pu" in shown


def test_show_of_an_unknown_run_exits_1(gmmc: Gmmc, trained: Trained) -> None:
    result = gmmc("runs", "show", "--run", "1999", "--runs-dir", trained.runs_dir)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no run 1999" in result.stderr


@pytest.mark.parametrize("file", ["provenance.json", "results/tsne.json"])
def test_a_damaged_file_of_one_run_is_said_and_hides_no_other(file: str, gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "2026-01-01T000000Z-a")
    shutil.copytree(trained.path, tmp_path / "2026-01-02T000000Z-b")
    (tmp_path / "2026-01-01T000000Z-a" / file).write_text("{")
    answer = gmmc("runs", "ls", "--runs-dir", tmp_path, "--json")
    assert answer.exit_code == 0
    statuses = {row["run"]: row["status"] for row in json.loads(answer.stdout)["values"]}
    assert statuses == {
        "2026-01-01T000000Z-a": "damaged" if file == "provenance.json" else "finished",
        "2026-01-02T000000Z-b": "finished",
    }
    assert f"warning: {tmp_path / '2026-01-01T000000Z-a' / file} is damaged" in answer.stderr


def test_check_repair_and_gc(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained.path, tmp_path / trained.path.name)))
    assert gmmc("runs", "check", "--runs-dir", tmp_path).stdout == "all intact\n"
    file = run.checkpoint().path / "buffer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    (run.path / "checkpoints" / ".step-00000099").mkdir()
    result = gmmc("runs", "check", "--runs-dir", tmp_path)
    assert result.exit_code == 6
    assert f"{run.id}: {file} is damaged" in result.stdout
    assert f"{run.id}: left over: {run.path / 'checkpoints' / '.step-00000099'}" in result.stdout
    assert "gmmc: error: 1 of 1 runs are damaged" in result.stderr
    would = gmmc("runs", "repair", "--dry-run", "--run", run.path).stdout
    assert would == f"{run.id}: would have set aside {file.parent}\n{run.id}: would have removed {run.path}/checkpoints/.step-00000099\n"
    document = json.loads(gmmc("runs", "repair", "--runs-dir", tmp_path, "--json").stdout)
    assert [line.split()[0] for line in document["values"][0]["found"]] == ["set", "removed"]
    assert gmmc("runs", "repair", "--runs-dir", tmp_path).stdout == "nothing to repair\n"
    assert gmmc("runs", "gc", "--runs-dir", tmp_path).stdout == "nothing to remove\n"


def test_a_run_that_is_being_trained_is_passed_over_unless_it_is_named(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained.path, tmp_path / trained.path.name)))
    with run.locked():
        for verb, nothing in (("repair", "nothing to repair"), ("gc", "nothing to remove")):
            assert gmmc("runs", verb, "--runs-dir", tmp_path).stdout == f"{nothing}\n"
            named = gmmc("runs", verb, "--run", run.path)
            assert (named.exit_code, named.stdout) == (1, "")
            assert "is being trained" in named.stderr


def test_what_another_version_or_program_wrote_hides_no_run(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    for name in "ab":
        shutil.copytree(trained.path, tmp_path / f"2026-01-01T000000Z-{name}")
    run = Run(tmp_path / "2026-01-01T000000Z-a")
    run.describe(schema=99)
    run.save_result({"command": "eval accuracy", "values": {"accuracy": "high"}})
    (run.path / "metrics.jsonl").write_bytes(bytes(range(256)))
    answer = gmmc("runs", "ls", "--runs-dir", tmp_path)
    first, second = answer.stdout.splitlines()
    assert "test accuracy" not in first
    assert "test accuracy" in second
    assert answer.stderr == f"gmmc: warning: {run.path}/provenance.json has schema 99, and this gmmc reads 1\n"
    shown = gmmc("runs", "show", run.path)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "update gmmc" in shown.stderr


def test_show_takes_the_run_as_an_argument_too(gmmc: Gmmc, trained: Trained) -> None:
    shown = gmmc("runs", "show", trained.path)
    assert shown.exit_code == 0
    assert shown.stdout == gmmc("runs", "show", "--run", trained.path).stdout
    assert gmmc("runs", "show", trained.path, "--run", trained.path).exit_code == 2


@pytest.fixture
def sweep(trained: Trained, tmp_path: Path) -> Path:
    """Six runs of one recipe that differ in the learning rate and in a list, the last two in a study."""
    for i, rate in enumerate(("1e-3", "3e-4", "1e-4", "3e-5", "1e-5", "1e-6")):
        overrides = [f"optim.learning_rate={rate}", f"optim.milestones=[{i}]", f"seed={1 + i % 2}"]
        folder = tmp_path / "runs" / ("study-rates" if i > 3 else "")
        made = Run.create(Recipe.load(trained.recipe, overrides), folder, []).path
        Run(made.rename(folder / f"2026-01-0{i + 1}T000000Z-animals")).describe(status="finished", wall_time_s=5400, device="cpu")
    return tmp_path / "runs"


def test_runs_of_a_sweep_do_not_look_alike(gmmc: Gmmc, sweep: Path) -> None:
    lines = gmmc("runs", "ls", "--runs-dir", sweep).stdout.splitlines()
    assert len(lines) == len({line.split("seed")[1] for line in lines}) == 6
    assert lines[0].endswith("no checkpoint  seed 1    optim.learning_rate=0.001 optim.milestones=[0]")
    assert [line.split()[0].startswith(f"{sweep}/study-rates/") for line in lines] == [False] * 4 + [True] * 2
    last = lines[-1].split()[0]
    assert gmmc("runs", "repair", last).stdout == "nothing to repair\n"  # what is listed is found


def test_csv_and_json_have_every_column(gmmc: Gmmc, sweep: Path) -> None:
    first, *rest = csv.reader(gmmc("runs", "ls", "--runs-dir", sweep, "--csv").stdout.splitlines())
    rows = json.loads(gmmc("runs", "ls", "--runs-dir", sweep, "--json").stdout)["values"]
    assert first == list(rows[0]) and len(rest) == len(rows) == 6
    assert rows[5]["changed"] == {"optim.learning_rate": 1e-6, "optim.milestones": [5]}
    told = dict(zip(first, rest[5], strict=True))
    assert told["changed"] == "optim.learning_rate=1e-06 optim.milestones=[5]"
    assert (told["study"], told["seed"], told["hours"], told["accuracy"]) == ("study-rates", "2", "1.5", "")


def test_a_wide_table_has_a_heading_and_every_column(gmmc: Gmmc, sweep: Path) -> None:
    heading, *lines = gmmc("runs", "ls", "--runs-dir", sweep, "--wide").stdout.splitlines()
    assert heading.split() == list(json.loads(gmmc("runs", "ls", "--runs-dir", sweep, "--json").stdout)["values"][0])
    assert len(lines) == 6 and all(line.index("cpu") == heading.index("device") for line in lines)
    assert gmmc("runs", "ls", "--wide", "--csv").exit_code == 2


@pytest.mark.parametrize("verb", ["check", "repair", "gc"])
def test_a_run_is_named_as_an_argument_or_by_the_option_and_all_are_meant_with_those_of_studies(
    verb: str, gmmc: Gmmc, trained: Trained, tmp_path: Path
) -> None:
    for folder in ("", "study-a"):
        shutil.copytree(trained.path, tmp_path / folder / trained.path.name)
    assert gmmc("runs", verb, trained.path.name, "--runs-dir", tmp_path).exit_code == 0
    assert gmmc("runs", verb, "zzz", "--runs-dir", tmp_path).exit_code == 1
    assert gmmc("runs", verb, "a", "--run", "b").exit_code == 2
    answer = json.loads(gmmc("runs", verb, "--runs-dir", tmp_path, "--json").stdout)
    assert [row["run"] for row in answer["values"]] == [trained.path.name, str(tmp_path / "study-a" / trained.path.name)]
