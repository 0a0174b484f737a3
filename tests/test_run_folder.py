import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import begun, described, trained

from gmmcli.errors import RunError, StorageError
from gmmcli.run_folder import default_runs_dir, find_run, is_trained, provenance_of, run_folders, status_of


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GMMC_RUN", raising=False)
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)


def test_runs_are_found_without_torch(tmp_path: Path) -> None:
    begun(tmp_path)
    code = "import sys; from gmmcli.run_folder import *; print(find_run('small', Path(sys.argv[1])).name, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert said == "2026-01-01T000000Z-small False\n"


def test_the_newest_that_qualifies_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = begun(tmp_path), begun(tmp_path, "2026-01-02T000000Z")
    (tmp_path / "notes").mkdir()
    assert run_folders(tmp_path) == [older, newer]
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
    assert (is_trained(path), status_of(path)) == (False, "killed")
    with trained(path):
        assert (is_trained(path), status_of(path)) == (True, "running")
    described(path, status="finished")
    assert status_of(path) == "finished"
    (path / ".lock").unlink()
    assert not is_trained(path)
    (path / ".lock").symlink_to(path / "recipe.toml")
    with pytest.raises(StorageError, match="is a link"):
        is_trained(path)


def test_provenance_is_what_the_file_says(tmp_path: Path) -> None:
    path = begun(tmp_path, device="cpu")
    assert provenance_of(path) == json.loads((path / "provenance.json").read_text())
    (path / "provenance.json").unlink()
    assert (provenance_of(path), status_of(path)) == ({}, "unknown")
