"""One tiny run, trained through the command line and shared by its tests."""

import json

import numpy as np
import pytest
from animals import RECIPE, Gmmc, Trained, invoke


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
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(60) % 3, "test": np.arange(30) % 3}
    pixels = {
        f"{name}_images": (80 * part[:, None, None] + rng.integers(0, 90, (len(part), 8, 8))).astype(np.uint8)
        for name, part in labels.items()
    }
    path = folder / "animals.npz"
    np.savez(path, **pixels, **{f"{name}_labels": part for name, part in labels.items()}, class_names=np.array(["cat", "dog", "fox"]))
    recipe = folder / "animals.toml"
    recipe.write_text(RECIPE.format(path=str(path)))
    with pytest.MonkeyPatch.context() as clean:
        clean.delenv("GMMC_RUN", raising=False)
        result = invoke("train", recipe, "--runs-dir", folder / "runs", "--json")
    assert result.exit_code == 0, result.stderr
    return Trained(folder / "runs", recipe, json.loads(result.stdout))
