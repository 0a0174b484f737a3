import json
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import FOLDER, check
from digits import KEYS

from gmmcli.errors import RunError
from gmmcli.evaluate.classification import accuracy, calibrate
from gmmcli.evaluate.detection import ood
from gmmcli.evaluate.measured import Measured, save
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs
from gmmcli.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")


def ask(subject: Subject, verb: str, **more: Any) -> Measured:
    return {"accuracy": accuracy, "calibrate": calibrate, "ood": ood}[verb](subject, **more)  # type: ignore[operator, no-any-return]


NAMES = {"accuracy": "eval accuracy", "calibrate": "eval calibrate", "ood": "eval ood uniform log_px"}
VERBS: list[tuple[str, dict[str, Any]]] = [("accuracy", {}), ("calibrate", {}), ("ood", {"sets": ["uniform"], "scores": ["log_px"]})]


@pytest.mark.parametrize(("verb", "more"), VERBS)
def test_a_result_has_its_keys_and_is_saved_as_it_is_returned(verb: str, more: dict[str, Any], subject: Subject) -> None:
    result = ask(subject, verb, **more).result
    assert list(result) == [*KEYS, *["means"] * (verb == "ood")]
    about = [result[key] for key in ("schema", "command", "run", "step", "dataset", "split", "n")]
    assert about == [1, f"eval {verb}", subject.run.id, 20, subject.dataset.title, "test", 120]
    assert result["protocol"]["gamma2"] == subject.gamma2
    text = (subject.run.path / "results" / f"{NAMES[verb].replace(' ', '-')}.json").read_text()
    assert json.loads(text) == result == subject.run.result(NAMES[verb])
    if FOLDER.is_dir():
        check(json.loads(text))
    assert "NaN" not in text and "Infinity" not in text


def test_a_number_that_is_not_finite_is_null(subject: Subject) -> None:
    result = save(subject, subject.result("eval x", {"gamma2": inf}, {"nll": nan, "nll_ci95": (0.5, inf)}), arrays={}).result
    assert (result["protocol"], result["values"]) == ({"gamma2": None}, {"nll": None, "nll_ci95": [0.5, None]})
    assert subject.run.result("eval x") == result


@pytest.mark.parametrize(("verb", "more"), VERBS)
def test_the_same_subject_gives_the_same_result(verb: str, more: dict[str, Any], run: Run) -> None:
    assert ask(Subject.open(run.path), verb, **more).result == ask(Subject.open(run.path), verb, **more).result


@pytest.mark.parametrize(("verb", "more"), VERBS)
def test_without_a_variance_nothing_is_measured(verb: str, more: dict[str, Any], subject: Subject) -> None:
    subject.model.gamma2 = None
    subject.run.describe(status="imported")  # from a file that has none; others are estimated
    before = list((subject.run.path).rglob("*"))
    with pytest.raises(RunError, match=subject.run.id):
        ask(subject, verb, **more)
    assert list((subject.run.path).rglob("*")) == before


def test_one_pass_serves_all(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(model: Any, images: torch.Tensor, *more: Any) -> Any:
        passes.append(len(images))
        return outputs(model, images, *more)

    monkeypatch.setattr("gmmcli.evaluate.subject.outputs", counted)
    subject.outputs(mass=True)
    for verb, more in VERBS:
        ask(subject, verb, **more)
    assert passes == [120, 60]  # the validation images once, for the temperature


@pytest.mark.parametrize(("verb", "more"), VERBS)
@pytest.mark.parametrize("out", [None, "elsewhere/picture.png"])
def test_the_picture_lies_in_the_run_or_where_it_is_asked_for(
    out: str | None, verb: str, more: dict[str, Any], subject: Subject, tmp_path: Path
) -> None:
    pictures = ask(subject, verb, out=tmp_path / out if out else None, **more).pictures
    stem = (tmp_path / out).with_suffix("") if out else subject.run.path / "figures" / NAMES[verb].replace(" ", "-")
    assert pictures == [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    assert all(path.is_file() for path in pictures)


def test_progress_goes_to_stderr_unless_quiet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy(Subject.open(run.path))
    assert capsys.readouterr() == ("", "")
    accuracy(Subject.open(run.path), quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "test 120/120" in err
