"""A run directory that is deleted under its training."""

import shutil

import pytest
from trainings import DIS, GEN, Begin

from gmmcli.errors import StorageError
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.step import training_step


@pytest.mark.parametrize(
    "overrides",
    [(DIS, "log.every=1000"), (GEN, "log.every=1000", "log.preview_every=1"), (DIS, "log.every=1000", "log.checkpoint_every=3")],
)
def test_it_is_not_made_anew_without_its_recipe(begin: Begin, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin(*overrides)

    def then_gone(*args: object) -> object:
        report = training_step(*args)  # type: ignore[arg-type]
        shutil.rmtree(run.path, ignore_errors=True)
        return report

    monkeypatch.setattr("gmmcli.train.loop.training_step", then_gone)
    with pytest.raises((StorageError, FileNotFoundError)) as caught:  # both are exit code 7
        train(setup, Run(run.path), quiet=True)
    assert str(run.path) in str(caught.value)
    assert not run.path.exists()
