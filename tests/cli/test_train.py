import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from animals import Gmmc, Trained, write_animals
from trainings import contents

from gmmcli.data.dataset import chunks
from gmmcli.metrics.features.spaces import Space
from gmmcli.recipe import Recipe
from gmmcli.run import Run, open_run


def test_training_answers_with_the_test_accuracy_and_its_interval(trained: Trained) -> None:
    answer = trained.answer
    assert (answer["command"], answer["split"], answer["n"], answer["step"]) == ("train", "test", 30, 6)  # 54 // 16 steps an epoch
    low, high = answer["values"]["ci95"]
    assert 0 <= low <= answer["values"]["accuracy"] <= high <= 1


def test_a_run_directory_has_all_it_should(trained: Trained) -> None:
    run = Run(trained.path)
    assert run.recipe == Recipe.load(trained.recipe)
    assert run.provenance["status"] == "finished"
    assert run.checkpoint().step == 6
    assert [line["step"] for line in run.metrics() if "loss" in line] == [2, 4, 6]
    assert run.result("eval accuracy") == trained.answer | {"command": "eval accuracy"}


def test_a_training_prints_its_path_and_accuracy(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    result = gmmc("train", trained.recipe, "--set", "stages.0.epochs=1", "--runs-dir", tmp_path, "--quiet")
    path, accuracy = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert Run(Path(path)).recipe.stages[0].epochs == 1
    assert accuracy.startswith("test accuracy ")


def test_a_training_of_minutes_tells_its_time_before_it_begins(
    gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", trained.recipe, "--set", "stages.0.epochs=1", "--runs-dir", tmp_path]
    for speed, says in ((1e4, True), (1e15, False)):
        monkeypatch.setattr("gmmcli.train.needs.operations_a_second", lambda device, precision, speed=speed: speed)
        lines = gmmc(*words).stderr.splitlines()
        told = r"gmmc: this training takes at least [\d.]+ (min|h|days) on this cpu: 3 steps, on average at least [\d.e+]+ s each"
        assert bool(re.fullmatch(told, lines[0])) == says


def test_what_is_beyond_the_machine_is_refused_and_tried_all_the_same_by_force(
    gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.train.needs.total_memory", lambda device: 2**20)
    words = ["train", trained.recipe, "--set", "stages.0.epochs=1", "--runs-dir", tmp_path / "runs", "--quiet"]
    refused = gmmc(*words)
    assert (refused.exit_code, (tmp_path / "runs").exists()) == (2, False)
    assert "animals needs at least 0.0 GiB of memory, and there are 0.0 GiB" in refused.stderr and "--force" in refused.stderr
    assert gmmc(*words, "--force").exit_code == 0


def test_a_training_with_an_average_answers_with_the_accuracy_of_the_average(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    result = gmmc("train", trained.recipe, "--set", "optim.ema_decay=0.9", "--runs-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    again = gmmc("eval", "accuracy", "--runs-dir", tmp_path, "--json")
    assert json.loads(result.stdout)["values"] == json.loads(again.stdout)["values"]


def test_a_training_that_was_cut_off_goes_on_where_it_stood(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run.create(Recipe.load(trained.recipe), tmp_path, [])
    result = gmmc("train", "--resume", "--runs-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["values"] == trained.answer["values"]  # same seed, same training
    assert Run(run.path).provenance["status"] == "finished"


def test_resuming_a_finished_run_changes_nothing_and_says_so(gmmc: Gmmc, trained: Trained) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.path.rglob("*")}
    result = gmmc("train", "--resume", "--run", trained.answer["run"], "--runs-dir", trained.runs_dir)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "is finished: nothing to resume" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in trained.path.rglob("*")} == before


def test_a_dry_run_writes_nothing(gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = gmmc("train", trained.recipe, "--dry-run", "--set", "seed=7", "--runs-dir", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    assert list(tmp_path.iterdir()) == []
    assert "seed = 7" in result.stdout
    assert "whole run          6 steps" in result.stdout


def test_a_dry_run_as_json(gmmc: Gmmc, trained: Trained) -> None:
    document = json.loads(gmmc("train", trained.recipe, "--dry-run", "--json").stdout)
    assert document["command"] == "train --dry-run"
    assert document["recipe"]["name"] == "animals"
    assert document["values"]["n_steps"] == 6
    assert document["values"]["buffer_bytes"] == 12 * 64 * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "gmmc train needs a recipe"),
        (["digit_gen"], "did you mean digits_gen?"),
        (["{recipe}", "--set", "sead=3"], "did you mean `seed`?"),
        (["{recipe}", "--set", "seed"], "is not of the form key=value"),
        (["{recipe}", "--set", "chains.buffer_size=13"], "does not divide by 3 classes; the nearest that does is 12 (animals on"),
        (["{recipe}", "--set", "data.batch_size=55"], "data.batch_size 55 is larger than the 54 training images"),
        (["{recipe}", "--set", "data.crop_padding=8"], "data.crop_padding 8 does not fit images of 8 pixels"),
        (["{recipe}", "--resume"], "--resume uses the run's recipe"),
        (["--resume", "--set", "seed=3"], "--resume uses the run's recipe"),
        (["--resume", "--dry-run"], "--resume uses the run's recipe"),
        (["{recipe}", "--run", "x"], "--run needs --resume"),
    ],
)
def test_a_recipe_error_exits_2_and_leaves_no_run(words: list[str], message: str, gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    result = gmmc("train", *[word.format(recipe=trained.recipe) for word in words], "--runs-dir", tmp_path / "runs")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_missing_data_exits_3_and_leaves_no_run(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    gone = tmp_path / "gone.npz"
    result = gmmc("train", trained.recipe, "--set", f"data.source.path={gone}", "--runs-dir", tmp_path / "runs")
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"no file at {gone}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_training_exits_5_and_is_on_record(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    result = gmmc("train", trained.recipe, "--set", "guard.max_loss=1e-9", "--runs-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (5, "")
    assert "training diverged at step 1" in result.stderr
    (run,) = tmp_path.iterdir()
    assert Run(run).provenance["status"] == "diverged"


def test_a_damaged_checkpoint_exits_6_and_names_the_file(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained.path, tmp_path / "copy")))
    run.describe(status="interrupted")
    file = run.checkpoint().path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    result = gmmc("train", "--resume", "--run", run.path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert f"{file} is damaged" in result.stderr


def test_a_checkpoint_cut_short_is_no_checkpoint_less_and_without_it_training_goes_on(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained.path, tmp_path / "copy")))
    last = run.checkpoint()
    file = last.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    result = gmmc("train", "--resume", "--run", run.path)
    assert (result.exit_code, result.stdout) == (6, "")
    assert f"{file} is damaged" in result.stderr and "--from-intact resumes from an older checkpoint" in result.stderr
    result = gmmc("train", "--resume", "--from-intact", "--run", run.path)
    assert result.exit_code == 1
    assert "has no intact checkpoint" in result.stderr
    shutil.rmtree(last.path)
    result = gmmc("train", "--resume", "--run", run.path)
    assert result.exit_code == 0, result.stderr
    assert run.checkpoint().step == last.step
    assert run.card().gamma2 == Run(trained.path).card().gamma2


def test_a_damaged_checkpoint_is_set_aside_and_training_goes_on_from_an_intact_one(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    assert gmmc("train", trained.recipe, "--set", "log.checkpoint_every=2", "--runs-dir", tmp_path).exit_code == 0
    run = open_run(None, tmp_path)
    straight = contents(run.checkpoint())
    run.describe(status="interrupted")
    for checkpoint in run.checkpoints[1:]:
        file = checkpoint.path / "buffer.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    assert gmmc("train", "--resume", "--run", run.path).exit_code == 6
    result = gmmc("train", "--resume", "--from-intact", "--run", run.path)
    assert result.exit_code == 0, result.stderr
    assert f"set aside {run.checkpoints[1].path}: it is damaged" in result.stderr
    assert len([*(run.path / "checkpoints").glob("damaged-*")]) == 2
    assert contents(open_run(None, tmp_path).checkpoint()) == straight


def test_from_intact_is_for_a_resume(gmmc: Gmmc, trained: Trained) -> None:
    result = gmmc("train", trained.recipe, "--from-intact")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--from-intact needs --resume" in result.stderr


def test_a_run_in_other_hands_is_not_touched(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Run.create(Recipe.load(trained.recipe), tmp_path, [])
    with run.locked():
        result = gmmc("train", "--resume", "--run", run.path)
    assert result.exit_code == 1
    assert "is being trained by another process" in result.stderr
    assert run.provenance["status"] == "created"


def test_validation_compares_samples_with_the_real_images_in_the_space_at_hand(
    gmmc: Gmmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda: None)
    embedded = []
    space = Space(
        "pixels", "", lambda images: embedded.append(len(images)) or torch.cat([part.flatten(1).double() for part in chunks(images, 50)])
    )
    monkeypatch.setattr("gmmcli.metrics.features.spaces.pixel_space", lambda: space)
    log = "log={every=2,preview_every=0,validate_every=3,validate_samples=4,best='samples'}"
    sampler = "chains.sampler={kind='sgld',n_steps=2,step_size=0.1}"
    words = (
        "train",
        write_animals(tmp_path),
        "--set",
        log,
        "--set",
        sampler,
        "--set",
        "chains.fresh_steps=4",
        "--runs-dir",
        tmp_path / "runs",
    )
    result = gmmc(*words, "--quiet")
    assert result.exit_code == 0, result.stderr
    run = Run(Path(result.stdout.splitlines()[0]))
    lines = [line for line in run.metrics() if "validation_accuracy" in line]
    assert [(line["step"], line["sample_space"]) for line in lines] == [(3, "pixels"), (6, "pixels")]
    assert embedded == [6, 12, 12]  # the validation images once, then four samples of three classes at each validation
    best = min(lines, key=lambda line: line["sample_distance"])
    assert best["sample_distance"] > 0
    assert run.checkpoint(best=True).step == best["step"]


def test_one_validation_image_has_no_distribution_to_compare_with(gmmc: Gmmc, tmp_path: Path) -> None:
    recipe = write_animals(tmp_path)
    with np.load(tmp_path / "animals.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "animals.npz", **arrays, val_images=arrays["test_images"][:1], val_labels=arrays["test_labels"][:1])
    sampler = "chains.sampler={kind='sgld',n_steps=2,step_size=0.1}"
    result = gmmc("train", recipe, "--set", sampler, "--set", "log.validate_samples=4", "--runs-dir", tmp_path / "runs")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "log.validate_samples needs at least two validation images, and there is one" in result.stderr
    assert not (tmp_path / "runs").exists()
