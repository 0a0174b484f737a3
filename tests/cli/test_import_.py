"""``gmmc import``: a file becomes a run that other commands take."""

import json
from pathlib import Path

import pytest
import torch
from animals import Gmmc
from checkpoints import JEM, replay_buffer, save, save_gmmc, write_things
from PIL import Image

from gmmcli.model_card import load_model


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GMMC_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


QUICK: tuple[list[object], ...] = (
    ["runs", "ls"],
    ["runs", "show", "last_ckpt"],
    ["runs", "check"],
    ["runs", "repair"],
    ["runs", "gc"],
    ["watch"],
    ["sample", "--class", "thing 3", "--n", 2, "--steps", 1],
    ["sample", "--n", 10, "--from", "buffer"],
    ["classify", "photo.png"],
    ["eval", "accuracy"],
    ["attack", "fgsm", "--n", 4],
    ["report"],
)
OTHERS: tuple[list[object], ...] = (
    ["restore", "photo.png", "--denoise", 0.1, "--n", 1],
    ["morph", "--from", "thing 1", "--to", "thing 2", "--n", 1, "--frames", 2],
    ["eval", "accuracy", "--refine", 1],
    ["eval", "calibrate"],
    ["eval", "ood", "--against", "uniform", "--score", "log_px"],
    ["eval", "generate", "--features", "pixels"],
    ["attack", "cw", "--n", 2, "--steps", 1, "--searches", 1],
    ["tsne", "--n", 20],
    ["export", "--no-onnx"],
)


@pytest.mark.parametrize("commands", [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["quick", "others"])
def test_an_imported_gmmc_is_a_run_like_any_other(
    commands: tuple[list[object], ...], gmmc: Gmmc, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gmmcli.evaluate.classify.LEAST", 5)  # validation images are few here
    Image.new("RGB", (32, 32), "red").save("photo.png")
    path = save_gmmc(tmp_path / "last_ckpt.pt", "legacy", buffer=replay_buffer(20))
    imported = gmmc("import", path, "--data", write_things(tmp_path / "things.npz"))
    assert imported.exit_code == 0, imported.stderr
    (run,) = runs.iterdir()
    assert imported.stdout.strip() == str(run)
    assert run.name.endswith("Z-last_ckpt")
    for command in commands:
        result = gmmc(*command)
        assert result.exit_code == 0, (command, result.stderr)
    assert "imported" in gmmc("runs", "ls").stdout


def test_the_answer_as_json_says_what_was_found(gmmc: Gmmc, tmp_path: Path, runs: Path) -> None:
    path = save({"model_state_dict": JEM(16, 2).state_dict(), "replay_buffer": replay_buffer(23)[0]}, tmp_path / "jem.pt", "zip")
    result = gmmc("import", path, "--name", "my_jem", "--json")
    answer = json.loads(result.stdout)
    (run,) = runs.iterdir()
    assert (answer["command"], answer["run"], answer["step"]) == ("import", run.name, 0)
    values = answer["values"]
    assert values["imported"]["origin"] == "JEM"
    assert (values["model"]["backbone"]["depth"], values["model"]["backbone"]["width"], values["model"]["head"]["kind"]) == (
        16,
        2,
        "linear",
    )
    assert (values["n_classes"], values["gamma2"], values["buffer_size"]) == (10, 1.0, 20)
    assert [f"gmmc: {note}" for note in values["notes"]] == result.stderr.strip().splitlines()[1:]
    assert "JEM, WRN-16-2, norm none, 10 classes, a replay buffer" in result.stderr


def test_without_data_a_gmmc_is_sampled_and_evaluation_says_how_to_get_gamma2(gmmc: Gmmc, tmp_path: Path, runs: Path) -> None:
    data = write_things(tmp_path / "things.npz")
    assert "gamma^2 is not in the file" in gmmc("import", save_gmmc(tmp_path / "a.pt", "zip")).stderr
    assert gmmc("sample", "--n", 10, "--steps", 1).exit_code == 0
    refused = gmmc("eval", "accuracy", "--data", data)
    assert refused.exit_code == 1
    assert "has no gamma^2: its file has none" in refused.stderr
    assert "import the file again with --data SOURCE" in refused.stderr


def test_an_imported_run_is_not_resumed(gmmc: Gmmc, tmp_path: Path, runs: Path) -> None:
    gmmc("import", save_gmmc(tmp_path / "a.pt", "zip"))
    refused = gmmc("train", "--resume")
    assert refused.exit_code == 1
    assert "was imported: it has no training to resume" in refused.stderr


def test_a_file_that_is_no_checkpoint_is_exit_code_6_and_leaves_no_run(gmmc: Gmmc, tmp_path: Path, runs: Path) -> None:
    for path in (save({"model": torch.nn.Linear(1, 1)}, tmp_path / "a.pt", "zip"), tmp_path / "missing.pt"):
        refused = gmmc("import", path)
        assert refused.exit_code == 6
        assert refused.stderr.count("\n") <= 2
    assert not runs.exists()


RECIPE = """
name = "next"
data = {{ source = {{ kind = "npz", path = {path!r} }}, batch_size = 10 }}
model = {{ backbone = {{ kind = "wide-resnet", depth = 10, width = 1 }} }}
init = {{ from = "old" }}
stages = [{{ epochs = 1, objective = {{ kind = "center-regression" }} }}]
"""


def test_training_starts_from_imported_weights_and_leaves_no_run_where_they_do_not_fit(gmmc: Gmmc, tmp_path: Path, runs: Path) -> None:
    recipe = tmp_path / "next.toml"
    recipe.write_text(RECIPE.format(path=write_things(tmp_path / "things.npz").removeprefix("npz:")))
    assert gmmc("import", save_gmmc(tmp_path / "old.pt", "zip")).exit_code == 0
    refused = gmmc("train", recipe, "--set", "model.backbone.width=2")
    assert refused.exit_code == 2
    assert "model.backbone.width is 1 there and 2 here" in refused.stderr
    assert len(list(runs.iterdir())) == 1
    assert gmmc("train", recipe, "--set", "optim.learning_rate=1e-9").exit_code == 0
    old, new = sorted(runs.iterdir(), key=lambda path: path.name.endswith("next"))
    stems = [load_model(next(run.glob("checkpoints/*/model.safetensors")))[0].backbone.stem.weight for run in (old, new)]
    assert torch.allclose(*stems, rtol=0, atol=1e-6)
