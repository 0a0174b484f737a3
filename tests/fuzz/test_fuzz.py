"""The short version of ``make fuzz``, and that it would notice what must not happen."""

import json
from pathlib import Path
from random import Random

import forked
import misbehaving
import pytest
import worker

import fuzz

pytestmark = pytest.mark.skipif(not (Path(fuzz.__file__).parents[2] / "docs").is_dir(), reason="needs the checkout")
EACH = dict.fromkeys(worker.KINDS, 2) | dict.fromkeys(("recipe", "set", "study", "plan", "npz", "folder", "import"), 8)
"""Inputs of each kind; fewer of those that take longer. None of them has a fault (docs/reliability.md)."""
UNTRAINED = sorted(set(worker.KINDS) - {"image", "model", "checkpoint", "run", "option"})


def test_inputs_of_every_kind_are_taken_or_refused_in_one_sentence(tmp_path: Path) -> None:
    inputs = [(kind, number) for kind, n in EACH.items() for number in range(n)]
    process = forked.CONTEXT.Process(target=worker.work, args=(inputs, tmp_path, tmp_path / "results.jsonl"))
    process.start()
    process.join()
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(results) == len(inputs)
    assert [result for result in results if result["faults"]] == []
    assert {result["exit_code"] for result in results} >= {0, 2}


def test_what_must_not_happen_is_noticed(tmp_path: Path) -> None:
    process = forked.CONTEXT.Process(target=misbehaving.found, args=(tmp_path, tmp_path / "faults.json"))
    process.start()
    process.join()
    assert json.loads((tmp_path / "faults.json").read_text()) == {name: faults for name, (_, faults) in misbehaving.VERBS.items()}


@pytest.mark.parametrize("kind", UNTRAINED)
def test_an_input_is_a_function_of_its_kind_and_number(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(number: int, place: str) -> tuple[list[str], dict[str, bytes]]:
        folder = tmp_path / place
        folder.mkdir()
        monkeypatch.chdir(folder)
        words = worker.KINDS[kind][0](Random(f"{kind} {number}"), folder)
        return words, {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    assert made(2, "once") == made(2, "again")
    assert made(3, "other") != made(2, "more")


def test_the_table_counts_every_input_once() -> None:
    ends = [(0, []), (0, []), (2, []), (3, []), (1, ["traceback"]), (None, ["time"]), (0, ["text", "outside"])]
    results = [{"kind": "npz", "exit_code": code, "faults": faults} for code, faults in ends]
    row, total = fuzz.table(results).splitlines()
    assert row == "| npz | 7 | 2 | 2: 1, 3: 1 | 1 | 1 | 0 | 1 | 1 | 0 |"
    assert total == row.replace("npz", "all")
