import os
from pathlib import Path

import pytest

from gmmcli.errors import StoppedError
from gmmcli.study.processes import Processes, last_message


def test_all_output_goes_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    log = tmp_path / "log"
    processes = Processes(jobs=3)
    assert processes.run(["--version"], log) == 0
    assert processes.run(["fly"], log) == 2
    text = log.read_text()
    assert text.startswith("$ gmmc --version\ngmmc ")
    assert "$ gmmc fly\n" in text
    assert "No such command" in text


@pytest.mark.parametrize(("jobs", "threads"), [(1, "8"), (3, "2"), (20, "1")])
def test_processes_share_the_cores(jobs: int, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    class Popen:
        def __init__(self, *call: object, env: dict[str, str], **rest: object) -> None:
            seen.update(env)

        def wait(self) -> int:
            return 0

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("gmmcli.study.processes.subprocess.Popen", Popen)
    Processes(jobs).run(["env"], tmp_path / "log")
    assert seen["OMP_NUM_THREADS"] == threads


def test_nothing_starts_after_a_stop(tmp_path: Path) -> None:
    processes = Processes()
    processes.stop()
    assert processes.run(["--version"], tmp_path / "log") == StoppedError.exit_code
    assert (tmp_path / "log").read_text() == "$ gmmc --version\n"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("gmmc: run x\ngmmc: error: no data\ngmmc: a hint\n", "no data"),
        ("gmmc: run x\ngmmc: interrupted\n", "interrupted"),
    ],
)
def test_the_last_message_is_the_error_else_the_last_line(output: str, message: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"$ gmmc train x\ngmmc: error: an earlier command\n$ gmmc eval ood\n{output}")
    assert last_message(log) == message
