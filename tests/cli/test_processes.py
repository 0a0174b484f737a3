"""The command in several processes, as torchrun starts them: one answers, all work."""

import json
import multiprocessing
import os
import shutil
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from animals import Gmmc, Trained

from gmmcli.cli.app import app


def launched(folder: Path, *words: str | Path) -> list[tuple[int, str, str]]:
    """Run gmmc in two processes, forked with torchrun's environment; return exit code, stdout and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        multiprocessing.get_context("fork").Process(target=_gmmc, args=(folder, rank, port, [str(word) for word in words]))
        for rank in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        for process in processes:
            process.start()
    for process in processes:
        process.join(60)
        process.kill()
    return [(process.exitcode or 0, *_said(folder, rank)) for rank, process in enumerate(processes)]


def _said(folder: Path, rank: int) -> tuple[str, str]:
    return (folder / f"{rank}.out").read_text(), (folder / f"{rank}.err").read_text()


def _gmmc(folder: Path, rank: int, port: int, words: list[str]) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in where.items()})
    code: Any = 1
    with (folder / f"{rank}.out").open("w") as sys.stdout, (folder / f"{rank}.err").open("w") as sys.stderr:
        try:
            app(words)
        except SystemExit as end:
            code = end.code
    os._exit(code)  # no pytest clean-up in a child


@pytest.fixture
def own(trained: Trained, tmp_path: Path) -> Path:
    """A run of one's own to write into."""
    return Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name))


def test_eval_answers_once_with_the_figures_of_one_process(own: Path, gmmc: Gmmc, tmp_path: Path) -> None:
    words = ("eval", "accuracy", "--run", own, "--json")
    (code, out, err), other = launched(tmp_path, *words)
    assert (code, other) == (0, (0, "", "")), err
    found, expected = json.loads(out), json.loads(gmmc(*words).stdout)
    for figure in ("accuracy", "nll", "brier"):
        assert found["values"][figure] == pytest.approx(expected["values"][figure], rel=1e-4)
    assert found["protocol"].keys() == expected["protocol"].keys()
    assert (own / "results" / "eval-accuracy.json").is_file()


def test_sample_writes_the_images_of_one_process(own: Path, gmmc: Gmmc, tmp_path: Path) -> None:
    words = ("sample", "--per-class", "2", "--steps", "2", "--format", "npz", "--run", own, "--json", "--out")
    (code, out, err), other = launched(tmp_path, *words, tmp_path / "two.npz")
    assert (code, other) == (0, (0, "", "")), err
    assert json.loads(out)["values"]["paths"] == [str(tmp_path / "two.npz")]
    gmmc(*words, tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert all(np.array_equal(one[name], two[name]) for name in ("images", "labels"))


def test_an_error_that_all_meet_ends_all_with_its_exit_code(tmp_path: Path) -> None:
    ended = launched(tmp_path, "eval", "accuracy", "--run", tmp_path / "nothing")
    assert [code for code, _, _ in ended] == [1, 1]
    assert "no run" in ended[0][2]
