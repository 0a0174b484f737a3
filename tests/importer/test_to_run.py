"""An imported run is one like any other: it opens, says where it is from, and names no path of the machine."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from checkpoints import FORMS, GMMC, JEM, Form, replay_buffer, save, save_gmmc, settle, simplex, write_things

from gmmcli.errors import CheckpointError, DataError, RecipeError
from gmmcli.importer.to_run import import_checkpoint
from gmmcli.model_card import load_model, without_paths
from gmmcli.run import open_run
from gmmcli.types import to_model


@pytest.mark.parametrize("form", FORMS)
def test_a_gmmc_with_its_data_is_a_whole_run(tmp_path: Path, form: Form) -> None:
    theirs, data = settle(GMMC(batch=True)), write_things(tmp_path / "things.npz")
    path = save_gmmc(tmp_path / "best ckpt.pt", form, theirs, buffer=replay_buffer(40))
    done = import_checkpoint(path, tmp_path / "runs", data=data)
    assert done.run.fingerprint is not None
    assert done.run.fingerprint.settled(done.run.dataset())[1] == ""
    run = open_run(runs_dir=tmp_path / "runs")
    assert done.notes == ()
    assert (run.id, run.status, run.checkpoint(best=True).step) == (done.run.id, "imported", 0)
    assert run.recipe.name == "best-ckpt"
    assert run.card().class_names[9] == "thing 9"
    assert run.buffer().images.shape == (10, 4, 3, 32, 32)
    assert run.recipe.chains.buffer_size == 40
    assert run.provenance["imported"] == {
        "file": "best ckpt.pt",
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "format": form,
        "origin": "GMMC",
    }
    train = run.dataset().train
    with torch.no_grad():
        features = theirs.f(to_model(train.images))
        gamma2 = (features - simplex()[train.labels]).square().sum(1).mean() / 64
    assert run.card().gamma2 == pytest.approx(float(gamma2), rel=1e-5)
    assert run.model().gamma2 == run.card().gamma2
    model, card = load_model(run.checkpoint().path / "model.safetensors")
    assert torch.equal(model.means, simplex())
    assert card.recipe == without_paths(run.recipe)


def test_a_gmmc_without_data_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    done = import_checkpoint(save_gmmc(tmp_path / "a.pt", "zip"), tmp_path / "runs", name="mine")
    assert done.run.fingerprint is None
    assert done.run.recipe.name == "mine"
    assert done.card.gamma2 is None
    assert [note.partition(":")[0].partition(",")[0] for note in done.notes] == [
        "the data are taken to be cifar10",
        "gamma^2 is not in the file",
    ]
    assert "import the file again with --data SOURCE" in done.notes[-1]
    assert done.run.recipe.data.source.kind == "cifar10"
    assert done.card.class_names == tuple("0123456789")


def test_a_jem_needs_no_gamma2_and_has_chains_without_classes(tmp_path: Path) -> None:
    path = save({"model_state_dict": JEM().state_dict(), "replay_buffer": replay_buffer()[0]}, tmp_path / "jem.pt", "legacy")
    done = import_checkpoint(path, tmp_path / "runs")
    assert done.card.gamma2 == 1.0
    assert done.run.recipe.chains.classless
    assert done.run.recipe.chains.sampler.step_size == 1.0
    bare = import_checkpoint(save(JEM().state_dict(), tmp_path / "bare.pt", "zip"), tmp_path / "runs")
    assert not bare.run.checkpoint().has("buffer")
    assert bare.run.recipe.chains.buffer_size == 10_000


def test_a_hundred_classes_are_cifar100s_and_others_need_their_data(tmp_path: Path) -> None:
    hundred = save_gmmc(tmp_path / "hundred.pt", "zip", GMMC(width=2), centers=simplex(100, 128), buffer=[])
    assert import_checkpoint(hundred, tmp_path / "runs").run.recipe.data.source.kind == "cifar100"
    seven = save_gmmc(tmp_path / "seven.pt", "zip", centers=simplex(7), buffer=[])
    with pytest.raises(RecipeError, match="the model has 7 classes, and neither CIFAR-10 nor CIFAR-100 has"):
        import_checkpoint(seven, tmp_path / "runs")
    done = import_checkpoint(seven, tmp_path / "runs", data=write_things(tmp_path / "things.npz", n_classes=7))
    assert (len(done.card.class_names), done.run.recipe.chains.buffer_size % 7) == (7, 0)


def test_nothing_that_is_written_names_the_folder_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    done = import_checkpoint(save_gmmc(folder / "a.pt", "zip"), tmp_path / "runs")
    files = [path for path in done.run.path.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert [path.name for path in files if b"private" in path.read_bytes()] == []
    assert json.loads((done.run.path / "provenance.json").read_text())["argv"] == ["gmmc", "import", "a.pt"]


def test_what_is_refused_leaves_no_run(tmp_path: Path) -> None:
    good, runs = save_gmmc(tmp_path / "a.pt", "zip"), tmp_path / "runs"
    with pytest.raises(RecipeError, match="7 classes and images of 32 x 32 x 3, the model 10 classes"):
        import_checkpoint(good, runs, data=write_things(tmp_path / "seven.npz", n_classes=7))
    with pytest.raises(RecipeError, match="10 classes and images of 16 x 16 x 3, the model 10 classes and images of 32 x 32 x 3"):
        import_checkpoint(good, runs, data=write_things(tmp_path / "small.npz", size=16))
    with pytest.raises(DataError, match="no file at"):
        import_checkpoint(good, runs, data=f"npz:{tmp_path}/nothing.npz")
    with pytest.raises(RecipeError, match="no dataset 'what'"):
        import_checkpoint(good, runs, data="what")
    with pytest.raises(RecipeError, match="becomes part of a folder's name"):
        import_checkpoint(good, runs, name="../a")
    with pytest.raises(CheckpointError, match="there is no file"):
        import_checkpoint(tmp_path / "b.pt", runs)
    assert not runs.exists()
