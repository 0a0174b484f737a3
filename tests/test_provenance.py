import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from gmmcli.provenance import filed_path, git_revision, provenance, public_argv, public_path, versions


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_revision_is_the_commit_and_a_plus_for_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision(tmp_path) == commit
    (tmp_path / "untracked").write_text("not code yet")
    assert git_revision(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == commit + "+"


def test_what_is_installed_within_somebodys_checkout_has_none_of_its_revisions(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    (tmp_path / ".venv" / "gmmcli").mkdir(parents=True)
    (tmp_path / ".venv" / "gmmcli" / "run.py").touch()
    assert git_revision(tmp_path / ".venv" / "gmmcli") is None


def test_outside_a_checkout_and_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(Path(__file__).parent) is None


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert versions(["torch", "no-such-package"]) == {"torch": version("torch"), "no-such-package": None}


def test_the_directory_a_run_was_trained_from_is_relative_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = provenance(tmp_path / "runs" / "a", ["gmmc", "train"])
    assert facts["trained_from"] == "../.."
    assert facts["argv"] == ["gmmc", "train"]
    assert facts["status"] == "created"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/srv/ada/bin/gmmc", "gmmc"),
        ("runs", "runs"),
        ("data.source.path=/srv/ada/my photos/x.npz", "data.source.path=x.npz"),
        ("npz:../ada/x.npz", "npz:x.npz"),
        ("data.source={kind='folder',path='/srv/ada/photos'}", "data.source={kind='folder',path='photos'}"),
        ("photos/", "photos/"),
        ("~/photos/cats/", "cats/"),
        ("8/255", "8/255"),
        ("--quiet", "--quiet"),
    ],
)
def test_published_commands_have_no_folders(word: str, shown: str) -> None:
    assert public_argv([word]) == [shown]


def test_published_paths_are_told_apart_by_their_folders() -> None:
    assert [public_path(path) for path in ("x.npz", "", "photos/")] == ["x.npz", "", "photos"]
    here, there = public_path("/srv/ada/x.npz"), public_path("/srv/bob/x.npz")
    assert here != there
    assert public_path("/srv/ada/x.npz/") == here
    assert re.fullmatch(r"x\.npz \([0-9a-f]{6}\)", here)


def test_paths_in_the_names_of_files_are_told_apart_by_all_of_them() -> None:
    assert [filed_path(path) for path in ("x-2.npz", "", "photos/")] == ["x-2.npz", "", "photos"]
    assert len({filed_path(path) for path in ("/srv/ada/x.npz", "/srv/bob/x.npz", "x.npz", "a b.npz", "a:b.npz", "a-b.npz")}) == 6
    assert re.fullmatch(r"a b\.npz [0-9a-f]{6}", filed_path("a b.npz"))
