import errno
import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from gmmcli import storage
from gmmcli.attacks.algorithms import ATTACKS
from gmmcli.attacks.attack import Attack
from gmmcli.errors import RunError, StorageError
from gmmcli.results import Results, departures
from gmmcli.run_folder import RunFolder, newest_result


def test_results_are_saved_under_their_command(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.result("eval accuracy") is None
    result = {"schema": 1, "command": "eval accuracy", "values": {"accuracy": 0.5}}
    path = results.save_result(result)
    assert path == tmp_path / "results" / "eval-accuracy.json"
    assert json.loads(path.read_text()) == results.result("eval accuracy") == result


@pytest.fixture
def takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory as others have published it, and a cache of one's own; whoever runs the tests may write anywhere."""
    published = tmp_path / "published"
    Results(published).save_result({"command": "eval accuracy", "values": {"accuracy": 0.5}})
    Results(published).save_result({"command": "eval ood", "values": {}}, scores=np.zeros(2))
    temporary = storage.TemporaryFile

    def refused(dir: Path) -> IO[bytes]:
        if Path(dir).is_relative_to(published):
            raise PermissionError(errno.EACCES, "Permission denied")
        return temporary(dir=dir)

    monkeypatch.setattr(storage, "TemporaryFile", refused)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return published


def test_results_of_a_run_that_takes_no_files_are_kept_in_the_users_cache(
    takes_no_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, before = Results(takes_no_files), sorted(takes_no_files.rglob("*"))
    mine = {"command": "eval accuracy", "values": {"accuracy": 0.75}}
    path = results.save_result(mine, labels=np.ones(3))
    assert path.is_relative_to(tmp_path / "cache" / "gmmc" / "runs")
    assert capsys.readouterr().err.count(f"what is written goes to {results.output}\n") == 1
    assert sorted(takes_no_files.rglob("*")) == before
    again = Results(takes_no_files)
    assert again.result("eval accuracy") == again.results()["eval-accuracy"] == mine
    assert len(again.arrays("eval-accuracy")["labels"]) == 3
    assert again.result("eval ood") is not None
    assert len(again.arrays("eval-ood")["scores"]) == 2
    assert list(again.results()) == ["eval-accuracy", "eval-ood"]


def test_a_list_of_runs_shows_the_accuracy_that_is_kept_there(takes_no_files: Path) -> None:
    assert RunFolder(takes_no_files).test_accuracy == 0.5
    path = Results(takes_no_files).save_result({"command": "eval accuracy", "values": {"accuracy": 0.75}})
    assert not path.is_relative_to(takes_no_files)
    assert RunFolder(takes_no_files).test_accuracy == 0.75
    assert newest_result(takes_no_files, "eval-accuracy.json") == path
    assert newest_result(takes_no_files, "eval-ood.json") == takes_no_files / "results" / "eval-ood.json"
    assert newest_result(takes_no_files, "tsne.json") is None


def test_a_namesake_elsewhere_does_not_get_them(takes_no_files: Path, tmp_path: Path) -> None:
    Results(takes_no_files).save_result({"command": "tsne", "values": {}})
    assert Results(tmp_path / "other" / "published").results() == {}


def test_a_run_and_a_cache_that_take_no_files_are_an_error(takes_no_files: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="cache is a file, not a folder"):
        _ = Results(takes_no_files).output


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("eval accuracy validation", "eval-accuracy-validation"),
        ("eval accuracy my/other data.npz test", "eval-accuracy-my-other-data.npz-test"),
        ("tsne ../../x", "tsne-..-..-x"),
        ("eval accuracy C:\\faces\n: test", "eval-accuracy-C-faces-test"),
        ("eval accuracy Bücher", "eval-accuracy-Bücher"),
    ],
)
def test_whatever_a_result_is_about_its_file_lies_in_results(name: str, file: str, tmp_path: Path) -> None:
    results = Results(tmp_path)
    path = results.save_result({"command": "eval accuracy", "values": {}}, name, logits=np.zeros(1))
    assert path == tmp_path / "results" / f"{file}.json"
    assert sorted(path.parent.iterdir()) == [path, path.with_suffix(".npz")]
    assert results.result(name) == {"command": "eval accuracy", "values": {}}
    assert results.result("eval accuracy") is None


def test_the_arrays_of_a_result_lie_beside_it_and_are_plain(tmp_path: Path) -> None:
    results = Results(tmp_path)
    arrays = {"logits": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), "labels": np.array([2, 0]), "in log_px": np.ones(2)}
    path = results.save_result({"command": "eval ood", "values": {}}, **arrays)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
        found = dict(archive)
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype
        assert np.array_equal(found[key], array)


def test_a_result_without_arrays_is_one_file(tmp_path: Path) -> None:
    results = Results(tmp_path)
    path = results.save_result({"command": "eval all", "values": {}})
    assert list(path.parent.iterdir()) == [path]
    assert results.arrays("eval-all") == {}


def test_all_results_come_back_by_their_files_stems_with_their_arrays(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.results() == {}
    saved: dict[str, dict[str, Any]] = {
        "tsne-n50": {"command": "tsne", "n": 50, "values": {}},
        "eval-ood-validation": {"command": "eval ood", "n": 9, "values": {}},
        "tsne": {"command": "tsne", "values": {}},
    }
    for stem, result in saved.items():
        results.save_result(result, stem, labels=np.arange(3), **{"in log_px": np.ones(2)})
    (tmp_path / "results" / "attack-audit-0123").mkdir()  # an audit under way
    (tmp_path / "results" / ".77-eval-ood.json").write_text('{"comm')  # another process is writing
    assert results.results() == saved
    arrays = results.arrays("tsne-n50")
    assert list(arrays) == ["labels", "in log_px"]
    assert arrays["labels"].tolist() == [0, 1, 2]


def test_departures_are_the_fields_that_differ() -> None:
    assert departures(Attack("apgd", "margin", restarts=5), ATTACKS["apgd"].defaults) == ["loss margin", "steps 40", "restarts 5"]
    assert departures(ATTACKS["pgd"].defaults, Attack()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"command": 1, "values": {}}', '{"command": "tsne", "values": 3}'])
def test_a_damaged_result_is_named_and_hides_no_other(content: str, tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.save_result({"command": "eval accuracy", "values": {"accuracy": 0.5}})
    (tmp_path / "results" / "tsne.json").write_text(content)
    assert [*results.results()] == ["eval-accuracy"]
    (damage,) = results.damaged_results()
    assert str(tmp_path / "results" / "tsne.json") in damage
    with pytest.raises(RunError, match=r"tsne\.json is damaged"):
        results.result("tsne")


def test_a_result_of_a_later_gmmc_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.save_result({"command": "eval ood", "values": {}, "schema": 1})
    path = results.save_result({"command": "eval accuracy", "values": {}, "schema": 2})
    assert [*results.results()] == ["eval-ood"]
    assert results.damaged_results() == [f"{path} has schema 2, and this gmmc reads 1"]
    with pytest.raises(RunError) as caught:
        results.result("eval accuracy")
    assert "update gmmc" in caught.value.hint


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "pickled"])
def test_arrays_that_are_damaged_are_said_once_and_missing(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(tmp_path)
    path = results.save_result({"command": "tsne", "values": {}}, labels=np.arange(1000)).with_suffix(".npz")
    content = bytearray(path.read_bytes())
    if damage == "pickled":
        np.savez(path, labels=np.array([{}], dtype=object))
    else:
        content[len(content) // 2] ^= 255
        path.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "text": b"no arrays"}[damage])
    assert results.arrays("tsne") == {}
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"gmmc: warning: {path} is damaged (")
