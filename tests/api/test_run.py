"""Classify and sample from Python: as the commands do, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from animals import invoke
from PIL import Image

from gmmcli import GmmcError, Run, list_runs, open_run, to_bytes, to_model
from gmmcli.core.chains import Chains
from gmmcli.core.classifier import predict
from gmmcli.errors import DataError, RecipeError, RunError
from gmmcli.evaluate.classify import Judgement
from gmmcli.run import Run as Directory

CPU = ["--device", "cpu", "--json", "-q"]


def images_of(run: Directory, n: int) -> torch.Tensor:
    return run.dataset().test.batch(slice(0, n))[0]


def test_bytes_and_files_get_the_verdicts_of_the_command(opened: Run, tmp_path: Path) -> None:
    images = images_of(opened, 3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    verdicts = opened.classify(images)
    answer = json.loads(invoke("classify", *paths, "--run", opened.path, *CPU[:3]).stdout)
    keys = ("label", "probability", "log_density", "known")
    assert [{key: getattr(one, key) for key in keys} for one in verdicts] == [{key: one[key] for key in keys} for one in answer["values"]]
    assert opened.classify(images.numpy()) == opened.classify(paths) == opened.classify([str(path) for path in paths]) == verdicts
    (alone,) = opened.classify(paths[0])
    assert (alone.label, alone.known) == (verdicts[0].label, verdicts[0].known)
    assert alone.probability == pytest.approx(verdicts[0].probability, rel=1e-5)  # another size of batch rounds differently
    assert opened.classify([]) == opened.classify(images[:0]) == []


def test_the_validation_images_pass_through_the_model_once(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    before = Judgement.__init__
    monkeypatch.setattr(Judgement, "__init__", lambda self, subject: (made.append(subject), before(self, subject))[1])
    for _ in range(2):
        opened.classify(images_of(opened, 1))
    assert len(made) == 1 and made[0].run is opened


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(2, 1, 8, 8),
            r"images are torch.float32 of shape \(2, 1, 8, 8\), and this run takes bytes \(uint8\) of shape \(n, 1, 8, 8\)",
        ),
        (np.zeros((1, 8, 8), dtype=np.uint8), r"of shape \(1, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"of shape \(1, 3, 8, 8\)"),
        ("nowhere.png", "nowhere.png is not a readable image"),
    ],
)
def test_what_is_no_image_for_the_run_is_a_data_error(opened: Run, images: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        opened.classify(images)  # type: ignore[arg-type]
    assert error.value.hint


def test_samples_are_those_of_the_command(opened: Run, tmp_path: Path) -> None:
    for origin, steps in (("noise", 2), ("buffer", None)):
        more = [] if steps is None else ["--steps", steps]
        words = ["--class", "3", "--class", "1", "--n", 5, "--from", origin, *more, "--seed", 7, "--format", "npz"]
        answer = invoke("sample", *words, "--out", tmp_path / "drawn.npz", "--run", opened.path, *CPU)
        assert answer.exit_code == 0, answer.stderr
        images, labels = opened.sample(["3", 1], 5, origin=origin, steps=steps, seed=7, device="cpu")  # type: ignore[arg-type]
        with np.load(tmp_path / "drawn.npz") as drawn:
            assert np.array_equal(drawn["images"], images.permute(0, 2, 3, 1).numpy()) and drawn["labels"].tolist() == labels.tolist()
        assert images.dtype == torch.uint8 and labels.tolist() == [1, 1, 1, 3, 3]


def test_a_class_is_named_alone_and_all_by_default(opened: Run) -> None:
    assert opened.sample("3", 2, steps=0)[1].tolist() == opened.sample(3, 2, steps=0)[1].tolist() == [3, 3]
    assert opened.sample(n=10, steps=0)[1].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": "ten"}, "no class 'ten' among the 10 of this run"),
        ({"classes": []}, "sample: classes is empty"),
        ({"n": 0}, "sample: `n`: must be greater than or equal to 1"),
        ({"step_size": -1.0}, "sample: `step_size`: must be greater than 0"),
        ({"origin": "bufer"}, "sample: `origin`: must be 'noise' or 'buffer'"),
        ({"origin": "buffer", "steps": 3}, "options of fresh chains"),
        ({"clases": 3}, "sample: `clases`: unexpected keyword argument"),
    ],
)
def test_what_cannot_be_drawn_is_refused(opened: Run, settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        opened.sample(**settings)  # type: ignore[arg-type]


@pytest.fixture
def masked(opened: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and a mask of its right half, as bytes and as files; chains are short."""
    monkeypatch.setattr(Chains, "lifetime", 3)
    image = images_of(opened, 1)
    mask = torch.zeros_like(image)
    mask[..., 4:] = 255
    for name, picture in (("image", image), ("mask", mask)):
        Image.fromarray(picture[0, 0].numpy()).save(tmp_path / f"{name}.png")
    return image, mask


@pytest.mark.parametrize(
    ("words", "settings", "n"),
    [(["--class", 3, "--n", 2, "--seed", 5], {"label": 3, "n": 2, "seed": 5}, 2), (["--denoise", 0.1], {"denoise": 0.1}, 1)],
)
def test_restored_images_are_those_of_the_command(
    words: list[object],
    settings: dict[str, Any],
    n: int,
    opened: Run,
    masked: tuple[torch.Tensor, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr("gmmcli.data.pictures.save_grid", lambda rows, *_: drawn.append(to_bytes(rows[0][1])))
    image, mask = masked
    hole = [] if "denoise" in settings else ["--mask", tmp_path / "mask.png"]
    answer = invoke("restore", tmp_path / "image.png", *hole, *words, "--run", opened.path, *CPU)
    assert answer.exit_code == 0, answer.stderr
    found = opened.restore(image, mask if hole else None, **settings, device="cpu")
    assert found.shape == (n, 1, 8, 8) and torch.equal(torch.cat([found[:0], drawn[0][1:]]), found)
    files = tmp_path / "image.png", tmp_path / "mask.png" if hole else None
    assert torch.equal(opened.restore(*files, **settings, device="cpu"), found)
    if hole:
        assert torch.equal(found[..., :4], image[..., :4].expand(2, -1, -1, -1)) and not torch.equal(found[0], found[1])


def test_a_morph_is_that_of_the_command(opened: Run, masked: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr("gmmcli.data.pictures.save_moving", lambda frames, *_: drawn.append(torch.stack([*map(to_bytes, frames)])))
    answer = invoke("morph", "--from", 3, "--to", 8, "--n", 2, "--frames", 3, "--run", opened.path, *CPU)
    assert answer.exit_code == 0, answer.stderr
    frames = opened.morph(3, "8", n=2, frames=3, device="cpu")
    assert frames.shape == (3, 2, 1, 8, 8) and frames.dtype == torch.uint8 and torch.equal(frames, drawn[0])


def test_an_export_is_that_of_the_command(opened: Run, tmp_path: Path) -> None:
    answer = json.loads(invoke("export", "--no-onnx", "--out", tmp_path / "a", "--run", opened.path, *CPU).stdout)
    files = opened.export(tmp_path / "b", onnx=False, device="cpu")
    assert [path.name for path in files] == [Path(path).name for path in answer["values"]["files"]] == ["model.safetensors", "README.md"]
    assert [path.read_bytes() for path in files] == [Path(path).read_bytes() for path in answer["values"]["files"]]
    assert opened.export(onnx=False)[0] == opened.path / "export" / "model.safetensors"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda run, image: run.restore(image), RecipeError, "needs mask or denoise"),
        (lambda run, image: run.restore(image, image * 0), RecipeError, "the mask is white nowhere"),
        (lambda run, image: run.restore(image, denoise=0.1, label="ten"), RecipeError, "no class 'ten'"),
        (
            lambda run, image: run.restore(image.expand(2, -1, -1, -1), denoise=0.1),
            DataError,
            "restore: 2 images were given, and it takes one",
        ),
        (lambda run, image: run.restore(image.float(), denoise=0.1), DataError, "restore: images are torch.float32"),
        (lambda run, image: run.restore(image, denoise=9), RecipeError, "restore: `denoise`: must be less than or equal to 2"),
        (lambda run, image: run.restore(image, denoise=0.1, n=65), RecipeError, "restore: `n`: must be less than or equal to 64"),
        (lambda run, image: run.morph(3, 3), RecipeError, "must be two classes"),
        (lambda run, image: run.morph(3, 8, frames=1), RecipeError, "morph: `frames`: must be greater than or equal to 2"),
        (lambda run, image: run.export(["x"]), RecipeError, "export: `out`"),
    ],
)
def test_what_cannot_be_made_is_refused(
    call: Callable[[Run, torch.Tensor], object], error: type[GmmcError], message: str, opened: Run
) -> None:
    with pytest.raises(error, match=message):
        call(opened, images_of(opened, 1))


def test_a_raw_model_takes_images_in_the_model_range(opened: Run) -> None:
    images = images_of(opened, 5)
    with torch.no_grad():
        assert torch.allclose(opened.model()(to_model(images)), predict(opened.model(), images))


def test_runs_are_opened_by_path_or_name_and_listed(opened: Run) -> None:
    folder = opened.path.parent
    (listed,) = list_runs(folder)
    assert (
        listed.path == opened.path == open_run(None, str(folder)).path == open_run("digits", folder).path == open_run(str(opened.path)).path
    )
    assert isinstance(listed, Run)
    with pytest.raises(RunError, match="no run zzz") as error:
        open_run("zzz", folder)
    assert isinstance(error.value, GmmcError)
