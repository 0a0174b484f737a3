"""Fixtures of small trainings."""

from pathlib import Path

import pytest
from trainings import SMALL, Begin, Small, write_digits

from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.setup import Setup


@pytest.fixture(scope="session")
def digits_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("pixels") / "digits.npz")


@pytest.fixture
def small(digits_archive: Path) -> Small:
    """The small recipe under ``key=value`` overrides."""
    return lambda *overrides: Recipe.loads(SMALL.format(path=digits_archive), overrides=overrides)


@pytest.fixture
def begin(small: Small, tmp_path: Path) -> Begin:
    """A setup and a new run of the small recipe under overrides: ``setup, run = begin("seed=2")``."""

    def begin(*overrides: str) -> tuple[Setup, Run]:
        setup = Setup.prepare(small(*overrides))
        return setup, Run.create(setup.recipe, tmp_path, ["gmmc", "train"])

    return begin
