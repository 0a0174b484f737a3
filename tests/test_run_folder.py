import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import begun, described, trained

from gmmcli.errors import RunError, StorageError
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.run_folder import RunFolder, complete, default_runs_dir, every_run_path, find_run, run_paths
from untrained import create, save


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMMC_RUN", raising=False)
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)


def test_a_run_reads_the_same_without_torch(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 3)
    save(run, 12)
    run.save_result({"command": "eval accuracy", "values": {"accuracy": 0.5}})
    folder = RunFolder(run.path)
    assert (folder.id, folder.provenance, folder.status) == (run.id, run.provenance, run.status)
    assert (folder.step, folder.test_accuracy, folder.document) == (12, 0.5, json.loads(json.dumps(tiny_recipe.document())))
    with run.locked():
        assert folder.is_locked
    assert not folder.is_locked


def test_reading_folders_imports_neither_torch_nor_numpy(tiny_recipe: Recipe, tmp_path: Path) -> None:
    save(create(tiny_recipe, tmp_path), 3)
    code = f"""
import sys
from pathlib import Path
from gmmcli.run_folder import RunFolder, every_run_path, find_run
assert find_run(None, Path({str(tmp_path)!r})).name.endswith("tiny")
(folder,) = map(RunFolder, every_run_path(Path({str(tmp_path)!r})))
assert (folder.step, folder.status, folder.test_accuracy, folder.document["name"]) == (3, "created", None, "tiny")
assert not {{"torch", "numpy"}} & {{*sys.modules}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_is_being_written_or_set_aside_is_not_complete(tmp_path: Path) -> None:
    for name in ("step-00000002", "step-00000011", ".step-00000012", "damaged-step-00000013", ".old-step-00000011", ".old-step-00000005"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    (tmp_path / "step-00000020").mkdir()
    assert {step: path.name for step, path in complete(tmp_path).items()} == {
        2: "step-00000002",
        5: ".old-step-00000005",
        11: "step-00000011",
    }
    assert RunFolder(tmp_path / "none").step is None


@pytest.mark.parametrize("text", ["{", "[]", '{"values": 3}', '{"values": {"accuracy": "high"}}', "\xff"])
def test_a_result_that_is_none_gives_no_accuracy(text: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "eval-accuracy.json").write_text(text)
    assert RunFolder(tmp_path).test_accuracy is None


def test_runs_of_studies_are_found_with_the_others_by_age(tiny_recipe: Recipe, tmp_path: Path) -> None:
    for place in ("2026-01-02-b", "study-x/2026-01-01-a", "study-x/2026-01-03-c", "elsewhere/deeper/2026-01-04-d"):
        Run.create(tiny_recipe, tmp_path / "made", []).path.rename(_made(tmp_path / "runs" / place))
    (tmp_path / "runs" / "report.html").touch()
    assert [path.name for path in every_run_path(tmp_path / "runs")] == ["2026-01-01-a", "2026-01-02-b", "2026-01-03-c"]
    assert [path.name for path in run_paths(tmp_path / "runs")] == ["2026-01-02-b"]
    assert every_run_path(tmp_path / "none") == []


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_the_environment_says_where_runs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)
    assert default_runs_dir() == Path("runs")
    monkeypatch.setenv("GMMC_RUNS_DIR", os.sep)
    assert default_runs_dir() == Path(os.sep)


def test_the_newest_that_qualifies_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = begun(tmp_path), begun(tmp_path, "2026-01-02T000000Z")
    (tmp_path / "notes").mkdir()
    assert [*run_paths(tmp_path)] == [older, newer]
    assert find_run(None, tmp_path) == find_run("small", tmp_path) == newer
    assert find_run("small", tmp_path, lambda path: path == older) == find_run("2026-01-01", tmp_path) == older
    assert find_run(str(older), tmp_path / "elsewhere") == older
    monkeypatch.setenv("GMMC_RUN", older.name)
    monkeypatch.setenv("GMMC_RUNS_DIR", str(tmp_path))
    assert default_runs_dir() == tmp_path
    assert find_run(None, None) == older


@pytest.mark.parametrize(
    ("name", "said"), [("2026", "is a prefix of 2 runs"), ("smal", "no run smal in"), ("", "name of the run is empty")]
)
def test_what_is_no_one_run_is_said(name: str, said: str, tmp_path: Path) -> None:
    begun(tmp_path)
    begun(tmp_path, "2026-01-02T000000Z")
    with pytest.raises(RunError, match=said):
        find_run(name, tmp_path)


def test_a_run_is_trained_while_a_process_holds_its_lock(tmp_path: Path) -> None:
    path = begun(tmp_path)
    assert (RunFolder(path).is_locked, RunFolder(path).status) == (False, "killed")
    with trained(path):
        assert (RunFolder(path).is_locked, RunFolder(path).status) == (True, "running")
    described(path, status="finished")
    assert RunFolder(path).status == "finished"
    (path / ".lock").unlink()
    assert not RunFolder(path).is_locked
    (path / ".lock").symlink_to(path / "recipe.toml")
    with pytest.raises(StorageError, match="is a link"):
        _ = RunFolder(path).is_locked


def test_provenance_is_what_the_file_says(tmp_path: Path) -> None:
    path = begun(tmp_path, device="cpu")
    assert RunFolder(path).provenance == json.loads((path / "provenance.json").read_text())
    (path / "provenance.json").unlink()
    assert (RunFolder(path).provenance, RunFolder(path).status) == ({}, "unknown")
