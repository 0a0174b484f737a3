import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from animals import Gmmc, Trained, leaves
from typer.main import get_command

from gmmcli import __version__
from gmmcli.cli.app import app
from gmmcli.cli.overview import NEWEST, overview
from gmmcli.run import Run
from gmmcli.run_folder import RunFolder

COMMANDS = {name for name, _ in leaves(get_command(app))}


def told(runs_dir: Path) -> tuple[list[str], str]:
    """The lines before the next command, and that."""
    *lines, following = overview(runs_dir)
    assert following.startswith("next: gmmc ")
    words = following.partition(", ")[0].split()[2:]
    assert words[0] in COMMANDS or " ".join(words[:2]) in COMMANDS
    return lines, following.removeprefix("next: ")


@pytest.fixture
def one(trained: Trained, tmp_path: Path) -> Run:
    """A finished run, to be written into."""
    return Run(Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name)))


def test_without_runs_the_demo_is_next(tmp_path: Path) -> None:
    assert told(tmp_path / "runs") == ([f"gmmc {__version__}", f"no runs in {tmp_path}/runs yet"], "gmmc train digits_gen")


def test_a_finished_run_is_shown_with_its_accuracy_and_to_be_evaluated(one: Run, trained: Trained) -> None:
    lines, following = told(one.path.parent)
    accuracy = f"test accuracy {trained.answer['values']['accuracy']:.2%}"
    assert lines[1:] == [
        f"1 run in {one.path.parent}:",
        f"  {one.id}  finished  step 6  seed 1  {accuracy}",
        f"newest result: {one.path}/results/eval-accuracy.json",
    ]
    assert following == "gmmc eval all"


@pytest.mark.parametrize(
    ("status", "following"),
    [
        ("created", "gmmc train --resume"),
        ("running", "gmmc train --resume"),
        ("interrupted", "gmmc train --resume"),
        ("failed", "gmmc train --resume"),
        ("imported", "gmmc eval all"),
        ("diverged", "gmmc train {path}/recipe.toml --set guard.on_divergence=rollback"),
    ],
)
def test_what_is_next_depends_on_how_the_training_ended(status: str, following: str, one: Run) -> None:
    one.describe(status=status)
    assert told(one.path.parent)[1] == following.format(path=one.path)


def test_a_training_that_goes_on_is_to_be_watched_and_a_damaged_run_checked(one: Run) -> None:
    one.describe(status="running")
    with one.locked():
        assert told(one.path.parent)[1] == f"gmmc watch --run {one.path}"
        shutil.rmtree(one.path / "checkpoints")
        assert told(one.path.parent)[1].startswith("gmmc runs ls, until")
    (one.path / "provenance.json").write_text("{")
    assert told(one.path.parent)[1] == f"gmmc runs check {one.path}"


def test_after_the_evaluation_come_report_audit_and_another_training(one: Run) -> None:
    steps = []
    for made in ("results/eval-all.json", "report.html", "results/attack-audit.json"):
        (one.path / made).write_text("{}")
        steps.append(told(one.path.parent)[1])
    assert steps == ["gmmc report", "gmmc attack audit", "gmmc recipes ls, for another training"]
    lines, _ = told(one.path.parent)
    assert lines[-1] == f"newest result: {one.path}/results/attack-audit.json"


def test_a_run_of_a_study_is_named_in_the_next_command(one: Run) -> None:
    study = one.path.parent / "study-x"
    study.mkdir()
    moved = one.path.rename(study / one.id)
    assert told(study.parent)[1] == f"gmmc eval all --run {moved}"


def test_of_many_runs_only_the_newest_are_read(one: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(1000):
        other = one.path.parent / f"2001-01-01T000000Z-{i:04}"
        other.mkdir()
        (other / "recipe.toml").touch()
    read = []
    status = RunFolder.status.fget
    assert status
    monkeypatch.setattr(RunFolder, "status", property(lambda folder: (read.append(folder.id), status(folder))[1]))
    lines, following = told(one.path.parent)
    assert lines[1] == f"1,001 runs in {one.path.parent}, the newest:"
    assert len(read) == NEWEST == len(lines) - 3
    assert following == "gmmc eval all"


def test_gmmc_alone_tells_where_you_are_then_helps_and_imports_no_torch(gmmc: Gmmc, one: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMMC_RUNS_DIR", str(one.path.parent))
    monkeypatch.setenv("GMMC_RUN", one.id)
    said = gmmc()
    assert (said.exit_code, said.stderr) == (0, "")
    first, _, rest = said.stdout.partition("\n\n")
    assert first.splitlines()[-2:] == [f"commands are about GMMC_RUN: {one.id}", "next: gmmc eval all"]
    assert rest == gmmc("--help").stdout
    code = f"""
import json, sys
from pathlib import Path
import gmmcli.cli.app
from gmmcli.cli.overview import overview
list(overview(Path({str(one.path.parent)!r})))
print(json.dumps([name for name in ("torch", "numpy", "rich", "pydantic") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_names_do_not_reach_the_terminal_raw(one: Run) -> None:
    path = one.path.rename(one.path.with_name("2026-01-01T000000Z-a\x1b[31m\nb"))
    (path / "provenance.json").write_text("{")
    lines, following = told(path.parent)
    assert not any("\x1b" in line or "\n" in line for line in (*lines, following))
    assert following == f"gmmc runs check {path.parent}/2026-01-01T000000Z-a\\x1b[31m\\nb"
