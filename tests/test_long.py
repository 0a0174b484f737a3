"""The long run tells what happened, and goes on in the folder where it was."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import long

STEP = {"loss": 1.0, "energy_data": 2.0, "energy_start": 9.0, "energy_model": 4.0, "still": 0.0}


def test_memory_that_grows_and_chains_that_stand_still_show_in_the_figures(tmp_path: Path) -> None:
    lines = [{"step": step, **STEP, "still": step / 100} for step in range(0, 101, 10)] + [{"step": 50, "event": "chains"}]
    lines[3]["loss"] = None
    readings = [{"step": step, "process": 1, "resident": 100.0 + step, "files": 4 + step // 90} for step in range(0, 100, 5)]
    after = {"step": 100, "process": 1, "resident": 900.0, "files": 50}  # the evaluation at the end
    found = {figure.name: figure.spread for figure in long.figures(lines, [*readings, after])}
    assert found["growth of a process"] == (85.0, 85.0, 85.0)
    assert found["open files"] == (4, 4, 5)
    assert found["chains that stand still"] == (0.5, 0.0, 1.0)
    assert found["losses that are not finite"] == found["warnings of chains"] == (1, 1, 1)
    assert found["energy of samples / of real images"][0] == 2.0
    long.draw(lines, readings, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_in_its_folder(tmp_path: Path) -> None:
    small = ("data.batch_size=256", "chains.buffer_size=100", "chains.start.rank=8", "log.every=1", "log.validate_every=0")
    words = [sys.executable, long.__file__, "digits_gen", "--steps", "60", "--every", "0.2", "--out", str(tmp_path)]
    first = subprocess.Popen([*words, *(word for one in small for word in ("--set", one))])
    while first.poll() is None and not (tmp_path / "readings.jsonl").exists():
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 128 + signal.SIGTERM
    run = long.run_of(tmp_path)
    assert run is not None
    assert run.status == "interrupted"
    stopped_at = run.checkpoint().step
    subprocess.run(words, check=True, timeout=120)
    assert list((tmp_path / "runs").iterdir()) == [run.path]
    assert stopped_at < run.checkpoint().step
    assert run.checkpoint().step >= 60
    assert sorted(line["step"] for line in run.metrics() if "loss" in line) == list(range(1, run.checkpoint().step + 1))
