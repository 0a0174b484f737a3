"""All evaluations in one pass."""

from functools import partial

import pytest

from gmmcli.evaluate import generation, whole
from gmmcli.evaluate.classification import accuracy
from gmmcli.evaluate.settings import settings
from gmmcli.evaluate.subject import Subject

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def small(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Samples are few, and compared as pixels."""
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSETS", 5)
    monkeypatch.setattr(generation, "DEFAULT_N", {"buffer": 20, "noise": 20})
    monkeypatch.setattr(whole, "settings", partial(settings, features="pixels"))
    return subject


def test_the_whole_is_its_parts(small: Subject) -> None:
    every, parts = whole.whole(small, ["interp"])
    assert every.result["values"] == {part.result["command"].removeprefix("eval "): part.result["values"] for part in parts}
    assert list(every.result["values"]) == ["accuracy", "calibrate", "ood", "generate"]
    assert every.result["values"]["accuracy"] == accuracy(small).result["values"]
    assert list(every.warnings) == [warning for part in parts for warning in part.warnings]
    assert small.run.results()["eval-all-interp"] == every.result


def test_without_a_buffer_no_samples_are_measured(small: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.checkpoint.Checkpoint.has", lambda self, part: part != "buffer")
    assert list(whole.whole(small, ["interp"])[0].result["values"]) == ["accuracy", "calibrate", "ood"]
