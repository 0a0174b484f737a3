"""What a run directory withstands: links in it, a clock that was set back, several processes at once."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gmmcli.checkpoint import Checkpoint
from gmmcli.errors import CheckpointError, RunError, StorageError
from gmmcli.recipe import Recipe
from gmmcli.run import Run, list_runs, open_run
from untrained import create, save


@pytest.fixture
def masked() -> Iterator[None]:
    """A umask that gives the group nothing but reading."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_lock_that_is_a_link_is_refused_and_what_it_points_to_left_alone(tmp_path: Path, tiny_recipe: Recipe) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = create(tiny_recipe, tmp_path / "runs")
    (run.path / ".lock").symlink_to(precious)
    with pytest.raises(StorageError, match=r"\.lock is a link, or no regular file$"), run.locked():
        pass
    assert precious.read_text() == "mine"


def test_a_lock_keeps_its_content(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    (run.path / ".lock").write_text("of another program")
    with run.locked():
        assert run.is_locked
    assert (run.path / ".lock").read_text() == "of another program"


@pytest.mark.usefixtures("masked")
def test_all_files_of_a_run_have_the_modes_of_the_umask(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10)
    run.log({"step": 1})
    run.save_result({"command": "tsne", "values": {}})
    with run.locked():
        pass
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert {"model.safetensors", ".lock", "tsne.json", "metrics.jsonl"} <= {path.name for path in files}
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files if path.stat().st_mode & 0o777 != 0o640} == {}


def test_threads_that_save_the_same_result_all_succeed(tmp_path: Path) -> None:
    results, failed, together = Run(tmp_path), list[BaseException](), threading.Barrier(4)

    def save_one(i: int) -> None:
        try:
            for _ in range(10):
                together.wait()
                results.save_result({"command": "eval accuracy", "values": {"i": i}})
        except (OSError, threading.BrokenBarrierError) as error:
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=save_one, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["eval-accuracy.json"]
    assert results.results()["eval-accuracy"]["values"]["i"] in range(4)


def test_a_run_that_starts_after_the_clock_was_set_back_is_the_newest(tmp_path: Path, tiny_recipe: Recipe) -> None:
    ahead = f"{datetime.now(UTC) + timedelta(days=400):%Y-%m-%dT235959Z}"
    (tmp_path / f"{ahead}-zzz").mkdir()
    (tmp_path / f"{ahead}-zzz" / "recipe.toml").write_text(tiny_recipe.dumps())
    made = [create(tiny_recipe, tmp_path) for _ in range(2)]
    assert [run.id for run in list_runs(tmp_path)][1:] == [run.id for run in made]
    for run in made:
        save(run, 1)
    assert open_run(None, tmp_path).id == made[-1].id
    assert made[-1].provenance["created"] < ahead


def test_a_name_that_is_no_time_does_not_disturb(tmp_path: Path, tiny_recipe: Recipe) -> None:
    (tmp_path / "9999-99-99T999999Z-x").mkdir()
    (tmp_path / "9999-99-99T999999Z-x" / "recipe.toml").write_text(tiny_recipe.dumps())
    assert create(tiny_recipe, tmp_path).id.startswith("2")


def test_facts_of_a_run_that_is_gone_are_not_written(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    run.path.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="was removed or moved"):
        run.describe(status="finished")
    assert not run.path.exists()


def test_a_run_of_a_later_gmmc_says_so(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    assert run.provenance["schema"] == 1
    run.describe(schema=2)
    with pytest.raises(RunError, match=r"provenance\.json has schema 2, and this gmmc reads 1$") as caught:
        _ = run.status
    assert "update gmmc" in caught.value.hint


def test_foreign_lines_among_the_metrics_are_kept_out_of_the_way(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = create(tiny_recipe, tmp_path)
    run.log({"step": 5})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\x00\xfe\n[1]\n" + b"[" * 100_000 + b'\n{"of": "another program"}\n')
    run.log({"step": 9})
    run.forget_after(5)
    assert run.metrics() == [{"step": 5}, {"of": "another program"}]


@pytest.mark.parametrize("part", ["buffer", "starts", "card", "model"])
def test_what_a_training_removes_while_it_is_read_is_read_of_the_next_checkpoint(
    part: str, tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(tiny_recipe, tmp_path)
    first = save(run, 10)
    verified = Checkpoint._verified

    def removed(one: Checkpoint, name: str) -> Path:
        if one == first and one.path.exists():
            save(run, 20)
            one.remove()
        return verified(one, name)

    monkeypatch.setattr(Checkpoint, "_verified", removed)
    assert getattr(run, part)() is not None
    assert [checkpoint.step for checkpoint in run.checkpoints] == [20]
    (run.checkpoint().path / "model.safetensors").unlink()
    (run.checkpoint().path / "buffer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no "):  # damage is not waited for
        getattr(Run(run.path), part)()


def test_that_the_best_checkpoint_is_lost_is_said_once(tmp_path: Path, tiny_recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    run = create(tiny_recipe, tmp_path)
    save(run, 10), save(run, 20), save(run, 30, best_step=20)
    assert run.checkpoint(best=True).step == 20
    assert capsys.readouterr().err == ""
    run.checkpoints[1].set_aside()
    assert [run.checkpoint(best=True).step for _ in range(2)] == [30, 30]
    assert capsys.readouterr().err == f"gmmc: warning: the best checkpoint of run {run.id}, step 20, is lost: this is the newest\n"
