"""One tiny run, trained through the command line and shared by its tests."""

import json

import pytest
from animals import Gmmc, Trained, invoke, write_animals


@pytest.fixture
def gmmc(monkeypatch: pytest.MonkeyPatch) -> Gmmc:
    """The command, with nothing in its environment."""
    monkeypatch.delenv("GMMC_RUN", raising=False)
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)
    return invoke


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A finished run; read-only to its tests, samples/ apart."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_animals(folder)
    with pytest.MonkeyPatch.context() as clean:
        clean.delenv("GMMC_RUN", raising=False)
        result = invoke("train", recipe, "--runs-dir", folder / "runs", "--json")
    assert result.exit_code == 0, result.stderr
    return Trained(folder / "runs", recipe, json.loads(result.stdout))
