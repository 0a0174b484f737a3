import json

import pytest
import torch

from gmmcli.cli.options import answer, note, select_device
from gmmcli.errors import RecipeError


def test_an_answer_is_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"values": [1, 2.5, None, "ü"]})
    said = capsys.readouterr()
    assert json.loads(said.out) == {"values": [1, 2.5, None, "ü"]}
    assert said.err == ""


def test_a_note_is_beside_the_answer_and_quiet_silences_it(capsys: pytest.CaptureFixture[str]) -> None:
    note("run x")
    note("run y", quiet=True)
    assert capsys.readouterr() == ("", "gmmc: run x\n")


def test_the_cpu_is_always_there() -> None:
    assert select_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_a_recipe_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    with pytest.raises(RecipeError, match="torch finds no usable GPU") as error:
        select_device("cuda")
    assert error.value.hint == "use --device auto"
