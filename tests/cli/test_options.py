import errno
import json
import shutil
from pathlib import Path
from typing import IO

import pytest
from animals import Gmmc, Trained

from gmmcli import storage
from gmmcli.cli.options import answer, note, opened, show_each
from gmmcli.errors import RunError
from gmmcli.evaluate.measured import Measured


def test_an_answer_is_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"values": [1, 2.5, None, "ü"]})
    said = capsys.readouterr()
    assert json.loads(said.out) == {"values": [1, 2.5, None, "ü"]}
    assert said.err == ""


def test_a_note_is_beside_the_answer_and_quiet_silences_it(capsys: pytest.CaptureFixture[str]) -> None:
    note("run x")
    note("run y", quiet=True)
    assert capsys.readouterr() == ("", "gmmc: run x\n")


def test_opening_a_run_says_which_and_hands_on_what_was_asked(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    subject = opened(trained.answer["run"], trained.runs_dir, "cpu", quiet=False, split="train", n=7, seed=3)
    assert capsys.readouterr() == ("", f"gmmc: run {trained.path}, step 6\n")
    assert (subject.run.path, subject.step, subject.split, subject.seed) == (trained.path, 6, "train", 3)
    assert len(subject.images.labels) == 7


def test_quiet_does_not_say_which_run(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    opened(trained.path, None, "cpu", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_opening_no_run_says_nothing_but_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="no run 1999 in"):
        opened("1999", tmp_path, "cpu", quiet=False)
    assert capsys.readouterr() == ("", "")


def test_a_published_run_that_takes_no_files_is_used_like_any_other(
    gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Path(shutil.copytree(trained.path, tmp_path / "published"))
    temporary = storage.TemporaryFile

    def refused(dir: Path) -> IO[bytes]:  # as a read-only disk does; whoever runs the tests may write anywhere
        if Path(dir).is_relative_to(published):
            raise OSError(errno.EROFS, "Read-only file system")
        return temporary(dir=dir)

    monkeypatch.setattr(storage, "TemporaryFile", refused)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    for words in (
        ["eval", "accuracy"],
        ["sample", "--n", 2, "--steps", 1],
        ["attack", "fgsm", "--n", 4],
        ["runs", "show"],
        ["runs", "check"],
    ):
        result = gmmc(*words, "--run", published)
        assert result.exit_code == 0, result.stderr
        for line in result.stdout.splitlines():
            assert not line.startswith("/") or Path(line).is_relative_to(tmp_path / "cache" / "gmmc" / "runs")
    shown = gmmc("eval", "accuracy", "--run", published, "--out", tmp_path)
    assert (tmp_path / "eval-accuracy.png").is_file(), shown.stderr
    assert "eval-accuracy" in {path.stem for path in (tmp_path / "cache").rglob("*.json")}
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == before


def test_results_stand_apart_and_their_warnings_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    about = {"run": "a", "step": 6, "dataset": "digits", "split": "test", "n": 30}
    measured = [
        Measured({**about, "command": command, "values": {"nll": 0.5}}, [Path("x y.png")], [f"{command} is odd"])
        for command in ("eval accuracy", "tsne")
    ]
    measured[0].result["values"]["per_class"] = {}
    show_each(measured)
    said = capsys.readouterr()
    assert said.out.split("\n\n") == [
        "eval accuracy: run a, step 6, digits test, n = 30",
        "metric  value [95% interval]\nnll     0.500",
        "x y.png",
        "tsne: run a, step 6, digits test, n = 30",
        "metric  value [95% interval]\nnll     0.500",
        "x y.png\n",
    ]
    assert said.err == "gmmc: warning: eval accuracy is odd\ngmmc: warning: tsne is odd\n"
