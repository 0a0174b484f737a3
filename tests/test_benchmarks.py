"""The benchmarks run, and keep what they find; how fast anything is, is not tested."""

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import bench
import gpu
import step
from conftest import TINY
from table import LEADING, Figure, leaderboard, markdown, ratios, table, write

PARTS = {"step": [Figure("ours fp32 / plain", "x", (1.2, 1.5, 1.3))], "startup": [Figure("gmmc --help", "s", (0.2,))]}


def test_every_part_of_the_table_is_a_function_of_a_script_and_every_leading_figure_of_a_part() -> None:
    for script, function, settings in bench.parts(long=True).values():
        inspect.signature(getattr(import_module(script), function)).bind(**settings)
    assert set(LEADING) == set(bench.parts(long=False))


def test_a_figure_is_a_median_with_its_range() -> None:
    assert Figure("ours", "ms", (3.0, 1.0, 2.0, 1000.0)).cells() == ["ours", "2.5 ms", "1 ms", "1,000 ms", "4"]
    assert ratios("twice", [2.0, 6.0], [1.0, 2.0]) == Figure("twice", "x", (2.0, 3.0))
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_run_is_written_twice_and_gets_a_row_of_the_leaderboard(tmp_path: Path) -> None:
    page = write(PARTS, tmp_path, 40 * "c" + "+", load=0.25, seconds=61.4)
    (tmp_path / "2020-01-01-0000-abcdef012.json").write_text(page.with_suffix(".json").read_text().replace('"date": "2', '"date": "1'))
    assert table(PARTS) in page.read_text()
    assert "Commit ccccccccc with uncommitted changes." in page.read_text()
    assert page.stem.endswith("ccccccccc-changed")
    assert "Load before the first measurement: 0.2; 61 s in all" in page.read_text()
    document = json.loads(page.with_suffix(".json").read_text())
    assert document["parts"]["step"] == [{"name": "ours fp32 / plain", "unit": "x", "values": [1.2, 1.5, 1.3]}]
    assert {"cpu", "cores", "flags", "threads", "torch"} <= document["machine"].keys()
    rows = leaderboard(tmp_path).splitlines()
    assert len(rows) == 4
    assert rows[0].count("|") == rows[2].count("|")
    assert "| 1.3 x |" in rows[2]
    assert "| 0.2 s |" in rows[2]
    assert rows[2][2] == "2", "the newest comes first"


def test_a_failing_part_is_told_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("startup.measure", lambda: PARTS["startup"])
    monkeypatch.setattr("memory.measure", lambda steps: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--only", "startup", "--only", "memory", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="failed: memory"):
        bench.main()
    assert "memory failed: ZeroDivisionError" in capsys.readouterr().err
    assert "0.2 s" in (tmp_path / "README.md").read_text()


def test_a_step_needs_as_many_operations_as_its_passes_have() -> None:
    """WRN-10-1 counted by hand, two for a multiplication and addition."""
    pixels, before = 32 * 32, 16
    forward = pixels * 9 * 3 * before
    for after in (16, 32, 64):
        forward += pixels * 9 * before * after  # the second convolution of a block strides, not the first
        pixels //= 4 if after > before else 1
        forward += pixels * (9 * after * after + (after > before) * before * after)
        before = after
    assert step.operations(step.Work(10, 1, batch=3, sampler_steps=4)) == 2 * forward * 3 * (2 * 4 + 2 * 3)


def test_the_contenders_of_the_gpu_run_on_a_cpu_with_little_work(tmp_path: Path) -> None:
    """In a process of its own: torch.compile would trace the checks of shapes, too."""
    (words, _) = gpu.stages("cpu", tmp_path)["wrn-10-1"]
    subprocess.run(words, check=True, capture_output=True)
    found = [figure["name"] for figure in json.loads((tmp_path / "step-wrn-10-1.json").read_text())["figures"]]
    assert {"plain fp32 NCHW", "plain tf32 NCHW", "ours tf32 / plain", "ours bf16 compiled / plain", "share of peak, bf16"} <= set(found)


def test_stages_of_the_gpu_are_bounded_together_and_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(limit for _, limit in gpu.stages("cuda", tmp_path).values()) <= 9 * 60 - 20
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    fail = [sys.executable, "-c", "raise SystemExit('broken')"]
    monkeypatch.setattr(
        gpu, "stages", lambda device, out: {"slow": (sleep, 0.5), "bad": (fail, 30.0), "good": ([sys.executable, "-c", "1"], 30.0)}
    )
    assert gpu.run_all("cpu", tmp_path) == 1
    told = capsys.readouterr().out
    assert "slow: stopped after its 0 s" in told
    assert "bad: failed with exit code 1" in told
    assert "good: done" in told
    assert (tmp_path / "bad.log").read_text() == "broken\n"


def test_without_a_gpu_it_says_so_and_has_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "all", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == gpu.NO_GPU
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_slice_trains_to_the_end_and_draws_its_curve(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.replace("batch_size = 32", "batch_size = 500"))
    assert gpu.train_slice(str(recipe), None, "cpu", 600.0, tmp_path) == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
