import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from animals import Gmmc, Trained, write_animals
from PIL import Image

from gmmcli import checkpoint
from gmmcli.cli.sample import file_names
from gmmcli.core.buffer import decode
from gmmcli.data.pictures import BETWEEN, GAP, HEADING, to_arrays
from gmmcli.run import Run


@pytest.fixture
def sample(gmmc: Gmmc, trained: Trained) -> Gmmc:
    return lambda *words: gmmc("sample", "--runs-dir", trained.runs_dir, "--quiet", *words)


def npz(sample: Gmmc, path: Path, *words: object) -> dict[str, Any]:
    result = sample("--format", "npz", "--out", path, *words)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}\n", "")
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_npz_has_bytes_labels_and_names(sample: Gmmc, tmp_path: Path) -> None:
    arrays = npz(sample, tmp_path / "new" / "x.npz", "--per-class", 5, "--steps", 1)
    assert (arrays["images"].shape, arrays["images"].dtype) == ((15, 8, 8, 1), np.uint8)
    assert arrays["labels"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert arrays["class_names"].tolist() == ["cat", "dog", "fox"]


@pytest.mark.parametrize("name", ["fox", "2"])
def test_a_class_by_name_or_index(name: str, sample: Gmmc, tmp_path: Path) -> None:
    assert npz(sample, tmp_path / "x.npz", "--class", name, "--n", 3, "--steps", 1)["labels"].tolist() == [2, 2, 2]


def test_the_same_seed_gives_the_same_images_and_another_gives_others(sample: Gmmc, tmp_path: Path) -> None:
    first, again, other = (
        npz(sample, tmp_path / f"{i}.npz", "--class", "dog", "--n", 3, "--steps", 3, "--seed", seed)["images"]
        for i, seed in enumerate((5, 5, 6))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_steps_move_the_images(sample: Gmmc, tmp_path: Path) -> None:
    short, long = (npz(sample, tmp_path / f"{steps}.npz", "--n", 1, "--steps", steps)["images"] for steps in (1, 10))
    assert not np.array_equal(short, long)


def test_the_step_size_and_number_of_steps_are_the_recipes_unless_said(sample: Gmmc, trained: Trained, tmp_path: Path) -> None:
    grid = ("--n", 1, "--json", "--out", tmp_path / "x.png")
    protocol = json.loads(sample(*grid).stdout)["protocol"]
    noise = {"noise_std": 0.0, "fresh_noise_std": 0.0}
    assert protocol == {"from": "noise", "steps": 80, "start": "uniform", "step_size": 0.1, **noise, "seed": 1}
    assert json.loads(sample(*grid, "--steps", 3, "--step-size", 0.5).stdout)["protocol"]["step_size"] == 0.5


def test_png_writes_every_image_into_its_class_folder(sample: Gmmc, tmp_path: Path) -> None:
    arrays = npz(sample, tmp_path / "x.npz", "--per-class", 2, "--steps", 1)
    result = sample("--format", "png", "--per-class", 2, "--steps", 1, "--out", tmp_path / "pngs")
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert [str(path.relative_to(tmp_path / "pngs")) for path in paths] == [
        f"{name}/0000{i}.png" for name in ("cat", "dog", "fox") for i in (0, 1)
    ]
    for path, array in zip(paths, arrays["images"], strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), array[..., 0])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--per-class", 64, "--steps", 1), "class-all-steps-1.png"),
        (("--class", "cat", "--n", 4, "--steps", 1), "class-cat-n4-steps-1.png"),
        (("--n", 2, "--steps", 1), "class-cat-dog-n2-steps-1.png"),
        (("--class", "cat", "--n", 4, "--from", "buffer"), "class-cat-n4-origin-buffer.png"),
        (("--class", "cat", "--n", 4, "--from", "buffer", "--best", "--seed", 2), "class-cat-n4-origin-buffer-seed-2-best.png"),
    ],
)
def test_a_grid_goes_into_the_run_under_what_was_asked_and_its_path_to_stdout(
    words: tuple[str, ...], name: str, sample: Gmmc, trained: Trained
) -> None:
    result = sample(*words)
    path = Path(result.stdout.strip())
    assert path == trained.path / "samples" / name
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_two_samples_do_not_replace_the_four_there_are_and_four_again_do(sample: Gmmc, trained: Trained) -> None:
    for form in ("grid", "npz", "png"):
        asked = ("--class", "dog", "--from", "buffer", "--format", form)
        four, two, again = (sample(*asked, "--n", n).stdout.split() for n in (4, 2, 4))
        assert four == again
        assert not set(four) & set(two)


def test_classes_of_one_name_but_for_signs_have_folders_of_their_own() -> None:
    assert file_names(["a/b", "a b", "c d", "ü-1"]) == ["a_b_0", "a_b_1", "c_d", "ü-1"]


@pytest.mark.parametrize(
    "names",
    [
        ["C++", "C#", "C"],
        ["a_b_1", "a b", "a/b"],
        ["a_1_2", "a b", "a_1", "a\x1b1", "a 1"],
        ["Cat", "cat", "CAT"],
        ["é", "e\u0301"],
        ["", "/", "..", "\ud800"],
        ["x" * 300, "x" * 301],
    ],
)
def test_no_disk_takes_the_files_of_two_classes_for_one(names: list[str]) -> None:
    files = file_names(names)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in files}) == len(names)
    assert all(re.fullmatch(r"[\w-]+", name) and len(name.encode()) < 250 for name in files)


def test_plain_names_are_kept_and_reserved_ones_are_not() -> None:
    assert file_names(["cat", "sea-lion", "猫", "9"]) == ["cat", "sea-lion", "猫", "9"]
    assert file_names(["aux", "CON"]) == ["aux_0", "CON_1"]


def test_several_classes_may_be_named(sample: Gmmc, trained: Trained, tmp_path: Path) -> None:
    words = ("--class", "fox", "--class", "0", "--class", "fox", "--per-class", 2, "--steps", 1)
    assert npz(sample, tmp_path / "x.npz", *words)["labels"].tolist() == [0, 0, 2, 2]
    assert Path(sample(*words).stdout.strip()) == trained.path / "samples" / "class-cat-fox-n4-steps-1.png"


def test_a_folder_takes_the_file_under_its_usual_name(sample: Gmmc, tmp_path: Path) -> None:
    for words, name in ((("--format", "grid"), "class-cat-n1-steps-1.png"), (("--format", "npz"), "class-cat-n1-steps-1.npz")):
        result = sample(*words, "--class", "cat", "--n", 1, "--steps", 1, "--out", tmp_path)
        assert result.stdout == f"{tmp_path / name}\n"
        assert (tmp_path / name).is_file()
    assert not tmp_path.with_suffix(".png").exists()


def test_every_part_of_a_checkpoint_is_hashed_and_the_model_loaded_once(
    sample: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name))  # files that nobody has read
    hashed, loaded = list[str](), list[str]()
    digest, load = checkpoint._digest, safetensors.torch.load_file
    monkeypatch.setattr(checkpoint, "_digest", lambda path: hashed.append(path.name) or digest(path))
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: loaded.append(path.name) or load(path))
    for origin in (("--from", "noise", "--steps", 1), ("--from", "buffer")):
        assert sample("--run", run, "--n", 2, "--best", *origin, "--out", tmp_path / "x.png").exit_code == 0
        assert loaded.count("model.safetensors") == 1
        del loaded[:]
    assert sorted(hashed) == ["buffer.safetensors", "model.safetensors", "progress.json"]


def test_from_the_buffer_come_its_own_images_none_twice(sample: Gmmc, trained: Trained, tmp_path: Path) -> None:
    arrays = npz(sample, tmp_path / "x.npz", "--from", "buffer", "--class", "dog", "--n", 4)
    slots = to_arrays(decode(Run(trained.path).buffer().images[1]))
    assert sorted(image.tobytes() for image in arrays["images"]) == sorted(slot.tobytes() for slot in slots)


def test_the_best_checkpoint_may_be_asked_for(sample: Gmmc, trained: Trained, tmp_path: Path) -> None:
    answer = json.loads(sample("--best", "--n", 1, "--steps", 1, "--json", "--out", tmp_path / "x.png").stdout)
    assert answer["step"] == Run(trained.path).checkpoint(best=True).step


def test_which_run_is_said_on_stderr(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    result = gmmc("sample", "--run", trained.path, "--n", 1, "--steps", 1, "--out", tmp_path / "x.png")
    assert f"gmmc: run {trained.path}, step 6" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--class", "fix"), "did you mean fox?"),
        (("--class", "elephant"), "give an index from 0 to 2, all, or one of: cat, dog, fox"),
        (("--class", "3"), "no class '3' among the 3 of this run"),
        (("--class", "-1"), "no class '-1' among the 3 of this run"),
        (("--from", "buffer", "--per-class", 5), "the buffer holds 4 images of a class, not 5"),
        (("--n", 3, "--per-class", 1), "--n and --per-class exclude each other"),
        (("--from", "buffer", "--steps", 5), "--steps, --step-size and --noise are options of fresh chains"),
        (("--from", "buffer", "--step-size", 0.1), "--steps, --step-size and --noise are options of fresh chains"),
        (("--step-size", 0), "--step-size 0.0 must be positive"),
        (("--step-size", "inf"), "--step-size inf must be positive and finite"),
        (("--step-size", "nan"), "--step-size nan must be positive and finite"),
        (("--noise", "inf"), "--noise inf must be finite"),
        (("--noise", "nan"), "--noise"),
        (("--class", "cat", "--class", "fix"), "did you mean fox?"),
        (("--out", "x.txt"), "give .png, .jpg, .webp, or a folder"),
        (("--format", "npz", "--out", "x.png"), "give .npz, or a folder"),
    ],
)
def test_what_cannot_be_meant_exits_2(words: tuple[object, ...], message: str, sample: Gmmc) -> None:
    result = sample(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_without_a_run_there_is_nothing_to_sample(gmmc: Gmmc, tmp_path: Path) -> None:
    result = gmmc("sample", "--runs-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "train one first" in result.stderr


def test_samples_of_fitted_starts_need_no_data(gmmc: Gmmc, tmp_path: Path) -> None:
    recipe = write_animals(tmp_path)
    chains = ("--set", "chains.start.kind=class-gaussian", "--set", "chains.start.rank=4", "--set", "chains.sampler.kind=fixed-length")
    result = gmmc("train", recipe, *chains, "--runs-dir", tmp_path / "runs", "--quiet")
    assert result.exit_code == 0, result.stderr
    (tmp_path / "animals.npz").unlink()
    result = gmmc("sample", "--runs-dir", tmp_path / "runs", "--n", 2, "--steps", 2, "--json", "--out", tmp_path / "x.png")
    assert result.exit_code == 0, result.stderr
    protocol = json.loads(result.stdout)["protocol"]
    assert (protocol["start"], protocol["step_size"]) == ("class-gaussian", 0.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--n", "100000000", "--steps", "1"], r"100,000,000 images take 23\.8 GiB of memory, and there are 1\.0 GiB"),
        (["--n", "1000000", "--steps", "100000000"], r"1,000,000 chains of 100,000,000 steps take at least [\d,]+ days on this cpu"),
    ],
)
def test_what_is_beyond_the_machine_is_refused_with_the_figures(
    words: list[str], sentence: str, gmmc: Gmmc, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.evaluate.samples.total_memory", lambda device: 2**30)
    result = gmmc("sample", "--runs-dir", trained.runs_dir, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(sentence, result.stderr)


def test_real_test_images_stand_beside_the_samples_of_their_class(sample: Gmmc, tmp_path: Path, trained: Trained) -> None:
    run = Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name))
    words = ("--run", run, "--class", "dog", "--class", "fox", "--per-class", 4, "--steps", 1, "--with-real")
    result = json.loads(sample(*words, "--json").stdout)
    assert (result["dataset"], result["split"], result["n"], result["n_real"]) == ("animals.npz", "test", 8, 8)
    (path,) = result["values"].pop("paths")
    assert path == str(run / "samples" / "class-dog-fox-n8-steps-1-with-real.png")
    assert Run(run).result("sample class-dog-fox-n8-steps-1-with-real") == result
    arrays = Run(run).arrays("sample-class-dog-fox-n8-steps-1-with-real")
    test = Run(run).dataset().test
    shown = {name: np.split(arrays[name], 2) for name in ("real", "samples")}
    for k, real in zip((1, 2), shown["real"], strict=True):
        of_class = {image.numpy().tobytes() for image in test.images[test.labels == k]}
        assert {image.tobytes() for image in real} < of_class
        assert len({image.tobytes() for image in real}) == 4
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    pitch = 8 * 6 + GAP
    left = next(x for x in range(sheet.shape[1]) if np.array_equal(corner(sheet, x, 0), shown["real"][0][0, 0]))
    for at, groups in ((left, shown["real"]), (left + 4 * pitch + BETWEEN, shown["samples"])):
        for row, group in enumerate(groups):
            assert all(np.array_equal(corner(sheet, at + pitch * i, row), image[0]) for i, image in enumerate(group))


def corner(sheet: np.ndarray, x: int, row: int) -> np.ndarray:
    """One pixel of each of the 8 x 8 squares, 6 pixels wide, of the image that begins at x."""
    top = HEADING + GAP + row * (48 + GAP)
    pixels: np.ndarray = sheet[top : top + 48 : 6, x : x + 48 : 6, 0]
    return pixels


def test_a_class_has_fewer_real_images_than_samples_where_there_are_no_more(sample: Gmmc, trained: Trained, tmp_path: Path) -> None:
    words = ("--class", "cat", "--n", 12, "--steps", 1, "--with-real", "--json", "--out", tmp_path / "x.png")
    result = json.loads(sample(*words).stdout)
    assert (result["n"], result["n_real"]) == (12, 10)


def test_without_the_data_real_images_cannot_be_shown(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.path.name))
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("animals.npz", "gone.npz"))
    before = {*run.rglob("*")}
    result = gmmc("sample", "--run", run, "--with-real", "--quiet")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "--with-real shows the run's test images: no file at " in result.stderr
    assert "gone.npz" in result.stderr
    assert result.stderr.endswith("or leave out --with-real\n")
    assert {*run.rglob("*")} == before
    assert gmmc("sample", "--run", run, "--n", 1, "--steps", 1, "--quiet").exit_code == 0


def test_real_images_are_of_the_grid_alone(sample: Gmmc) -> None:
    result = sample("--with-real", "--format", "npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--with-real goes with --format grid, not with --format npz" in result.stderr
