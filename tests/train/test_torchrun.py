"""``gmmc train`` as torchrun starts it, in several processes."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainings import Small

from gmmcli.cli.app import main
from gmmcli.run import Run
from ranks import on_ranks


def command(*arguments: str) -> int | str | None:
    """The exit code of ``gmmc ARGUMENTS``."""
    sys.argv = ["gmmc", *arguments]
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_the_command_trains_and_resumes_in_all_processes_and_answers_once(
    small: Small, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.toml").write_text(small("log.preview_every=5").dumps())
    runs = ("--runs-dir", str(tmp_path / "runs"))
    assert on_ranks(2, command, "train", str(tmp_path / "r.toml"), *runs, join=False) == [0, 0]
    out, err = capfd.readouterr()
    (folder,) = (tmp_path / "runs").iterdir()
    assert (out.count(str(folder)), out.count("test accuracy"), err.count("small 5/5")) == (1, 1, 1)
    run = Run(folder)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 5]
    assert [path.name for path in (folder / "samples").iterdir()] == ["preview-00000005.png"]
    assert on_ranks(2, command, "train", "--resume", *runs, join=False) == [0, 0]
    assert "is finished: nothing to resume" in capfd.readouterr().err
    assert on_ranks(2, command, "train", str(tmp_path / "r.toml"), "--dry-run", join=False) == [0, 0]
    assert len(re.findall(r"memory, buffer +0\.0 MiB", capfd.readouterr().out)) == 1


def test_torchrun_told_to_stop_saves_and_the_run_resumes(small: Small, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(small("stages.0.epochs=2000", "log.keep=2").dumps())
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gmmcli", "train", str(tmp_path / "r.toml"), "--quiet"]
    torchrun = subprocess.Popen([sys.executable, "-m", *words, "--runs-dir", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (logs := list(tmp_path.glob("*/metrics.jsonl"))) and torchrun.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    torchrun.send_signal(signal.SIGTERM)
    _, err = torchrun.communicate(timeout=60)
    assert logs, err
    run = Run(logs[0].parent)
    assert err.count("gmmc: stopped: SIGTERM after step") == 1
    assert run.provenance["status"] == "interrupted"
    saved, last = run.checkpoint().step, run.metrics()[-1]["step"]
    assert saved == last
    assert run.checkpoint().shards("buffer") == ["buffer-r00", "buffer-r01"]
    n_epochs = saved // 5 + 1
    (run.path / "recipe.toml").write_text(small(f"stages.0.epochs={n_epochs}", "log.keep=2").dumps())
    assert on_ranks(2, command, "train", "--resume", "--runs-dir", str(tmp_path), join=False) == [0, 0]
    assert [line["step"] for line in run.metrics()] == list(range(1, 5 * n_epochs + 1))
    assert run.provenance["status"] == "finished"
