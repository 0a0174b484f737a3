"""Nothing that is published tells where, by whom or on which machine it was made."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors
from animals import Gmmc, write_animals

HOST = "lovelaces-laptop"
TELLING = ("lovelace", "secret", "diary", str(Path(__file__).parents[2]))
"""Parts of the home directory, the data's and the runs' folders, the host; where the code lies."""


@pytest.fixture
def published(gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The text of all that is made to be given to others, by name, of a run in a telling folder of a telling home."""
    home = tmp_path / "home" / "lovelace"
    folder, elsewhere = home / "secret project", home / "diary"
    for path in (folder, elsewhere):
        path.mkdir(parents=True)
    for key, value in {"HOME": str(home), "USER": "lovelace", "LOGNAME": "lovelace", "HOSTNAME": HOST}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("socket.gethostname", lambda: HOST)
    monkeypatch.setattr("platform.node", lambda: HOST)
    monkeypatch.setattr("gmmcli.evaluate.classify.LEAST", 5)  # the run has six validation images
    recipe = write_animals(folder)
    data = Path(shutil.copy(recipe.with_suffix(".npz"), elsewhere / "far.npz"))
    monkeypatch.chdir(folder)
    words = ["train", str(recipe), "--runs-dir", str(folder / "runs"), "--set", "stages.0.epochs=1"]
    monkeypatch.setattr("sys.argv", [str(home / "bin" / "gmmc"), *words])
    trained = gmmc(*words, "--json")
    assert trained.exit_code == 0, trained.stderr
    monkeypatch.setattr("sys.argv", [str(home / "bin" / "gmmc"), *words, "--set", f"data.source.path={data}"])
    assert gmmc(*words, "--set", f"data.source.path={data}").exit_code == 0
    run = folder / "runs" / json.loads(trained.stdout)["run"]
    against = ("--against", f"npz:{data}", "--against", f"npz:{recipe.with_suffix('.npz')}", "--score", "log_px")
    for command in (("eval", "accuracy"), ("eval", "ood", *against), ("export", "--no-onnx")):
        assert gmmc(*command, "--run", run).exit_code == 0
    assert gmmc("report", "--study", folder / "runs").exit_code == 0
    assert gmmc("report", "--run", run, "--out", run / "one.html").exit_code == 0
    pages = [folder / "runs" / "report.html", folder / "runs" / "report.md", run / "one.html", run / "one.md", run / "export" / "README.md"]
    texts = {path.name: path.read_text(encoding="utf-8") for path in pages}
    for model in (run / "export" / "model.safetensors", *run.glob("checkpoints/*/model.safetensors")):
        with safetensors.safe_open(model, "pt") as file:
            texts[str(model.relative_to(run))] = json.dumps(file.metadata())
    return texts


def test_reports_exports_and_model_files_name_no_folder_user_or_host(published: dict[str, str]) -> None:
    assert len(published) == 7
    for name, text in published.items():
        told = [word for word in TELLING if word in text]
        assert not told, f"{name} tells {told}"


def test_what_stands_in_their_place_still_tells_things_apart(published: dict[str, str]) -> None:
    assert "AUROC of log p(x) against far.npz" in published["README.md"]
    assert "gmmc train animals.toml --runs-dir runs --set stages.0.epochs=1 --set data.source.path=far.npz" in published["report.html"]
    assert "npz:far.npz (" in published["one.html"] and "npz:animals.npz (" in published["one.html"]
    assert "| `data.source.path` | animals.npz (" in published["report.md"]
    assert "animals.npz" in published["export/model.safetensors"]
