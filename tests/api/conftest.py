"""The tiny run of ten kinds of digits, opened."""

from pathlib import Path

import pytest
from animals import invoke
from digits import run, trained, undrawn

from gmmcli import Run, open_run
from gmmcli.run import Run as Directory

__all__ = ["invoke", "run", "trained", "undrawn"]


@pytest.fixture
def opened(run: Directory) -> Run:
    """A copy to write into."""
    return open_run(Path(run.path))
