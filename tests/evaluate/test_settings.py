"""Spaces, judges and other runs by their names."""

import json
import shutil
from pathlib import Path

import pytest

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.errors import MissingPartError, RecipeError, RunError
from gmmcli.evaluate.settings import settings
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.judge import ModelJudge, PixelJudge
from gmmcli.run import Run


def test_by_default_the_best_features_and_the_buffer(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.features.spaces.best_space", lambda weights: "pixels")
    found = settings(subject)
    assert (found.space.name, found.draw.origin, found.draw.seed, found.n) == ("pixels", "buffer", 1, None)
    assert isinstance(found.judge, PixelJudge)


def test_a_run_lends_its_features_and_judges(subject: Subject) -> None:
    found = settings(subject, "digits", "digits", "noise", runs_dir=subject.run.path.parent, n=7)
    assert (found.space.name, found.draw.origin, found.n) == (f"run:{subject.run.id}", "noise", 7)
    assert isinstance(found.judge, ModelJudge) and found.judge.name == subject.run.id


def test_what_is_not_there_is_an_error(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(MissingPartError):
        settings(subject, "inception", weights=tmp_path / "none.pth")
    with pytest.raises(RunError, match="no run nobody"):
        settings(subject, "pixels", judge="nobody", runs_dir=subject.run.path.parent)


def test_a_run_of_other_classes_is_refused(subject: Subject) -> None:
    other = Run(Path(shutil.copytree(subject.run.path, subject.run.path.with_name("0-trees"))))
    old = other.checkpoint()
    card = old.metadata("model") | {"class_names": json.dumps([f"tree {k}" for k in range(10)])}
    Checkpoint.save(other.path / "checkpoints", old.step, {"model": Part(old.tensors("model"), card)}, old.progress)
    with pytest.raises(RecipeError, match="run 0-trees knows other images or classes"):
        settings(subject, "pixels", judge="0-trees", runs_dir=subject.run.path.parent)
