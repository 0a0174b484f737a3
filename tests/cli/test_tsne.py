import json
import shutil
from math import nan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from animals import Gmmc, Trained
from matplotlib.figure import Figure
from PIL import Image
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.chains import Chains
from gmmcli.run import Run


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the trained run in ./runs."""
    monkeypatch.chdir(tmp_path)
    return Run(Path(shutil.copytree(trained.path, Path("runs") / trained.path.name)))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, kept instead of written."""
    figures: list[Figure] = []

    def draw(figure: Figure, *paths: Path) -> None:
        figures.append(figure)
        for path in paths:
            path.touch()

    monkeypatch.setattr("gmmcli.evaluate.plots._draw", draw)
    return figures


@pytest.fixture
def tsne(gmmc: Gmmc, run: Run, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch) -> Gmmc:
    """The command with the first two features for a plane, which saves the most of its time, and short fresh chains."""
    monkeypatch.setattr("gmmcli.evaluate.tsne.embed", lambda features, seed: features[:, :2].numpy())
    monkeypatch.setattr(Chains, "lifetime", 3)
    return lambda *words: gmmc("tsne", *words, "-q")


def rewrite(run: Run, weights: float | None = None, **card: Any) -> None:
    """Save the newest checkpoint again with one thing changed."""
    old = run.checkpoint()
    tensors = old.tensors("model")
    if weights is not None:
        tensors = {key: torch.full_like(t, weights) if t.is_floating_point() else t for key, t in tensors.items()}
    header = old.metadata("model") | {key: json.dumps(value) for key, value in card.items()}
    Checkpoint.save(run.path / "checkpoints", old.step, {"model": Part(tensors, header)}, old.progress)


def saved(run: Run, name: str = "tsne") -> dict[str, np.ndarray]:
    with np.load(run.path / "results" / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def twin(run: Run) -> Run:
    return Run(Path(shutil.copytree(run.path, Path("runs") / "0-twin")))  # older than the other by its name


def test_pictures_and_coordinates_lie_at_the_paths_on_stdout(gmmc: Gmmc, run: Run) -> None:
    result = gmmc("tsne")
    assert result.exit_code == 0
    png, svg, npz, csv = map(Path, result.stdout.splitlines()[-4:])
    assert [png, svg] == [run.path / "figures" / f"tsne.{suffix}" for suffix in ("png", "svg")]
    assert [npz, csv] == [run.path / "results" / f"tsne.{suffix}" for suffix in ("npz", "csv")]
    with Image.open(png) as picture:
        assert picture.format == "PNG"
    assert ElementTree.parse(svg).getroot().tag.endswith("}svg")
    assert f"gmmc: run {run.path}, step 6" in result.stderr


def test_the_coordinates_are_those_of_the_test_images_in_either_form(tsne: Gmmc, run: Run) -> None:
    document = json.loads(tsne("--json").stdout)
    assert document == run.result("tsne")
    arrays = saved(run)
    table = np.genfromtxt(run.path / "results" / "tsne.csv", delimiter=",", names=True)
    assert (document["command"], document["n"], arrays["plane"].shape) == ("tsne", 30, (30, 2))
    assert table.dtype.names == ("x", "y", "label", "sample")
    assert np.column_stack([table["x"], table["y"]]) == pytest.approx(arrays["plane"], rel=1e-5)
    assert table["label"].tolist() == arrays["labels"].tolist() == run.recipe.data.source.load().test.labels.tolist()
    assert not arrays["sampled"].any()
    assert not table["sample"].any()


def test_it_is_said_how_far_to_trust_the_plane(gmmc: Gmmc, run: Run, drawn: list[Figure]) -> None:
    values = json.loads(gmmc("tsne", "--json").stdout)["values"]
    arrays = saved(run)
    scores = cross_val_score(KNeighborsClassifier(5), arrays["plane"], arrays["labels"], cv=LeaveOneOut())
    assert values["knn_accuracy"] == pytest.approx(scores.mean())
    assert 0.5 < values["trustworthiness"] <= 1


def test_the_same_seed_gives_the_same_plane_and_another_another(gmmc: Gmmc, run: Run, drawn: list[Figure]) -> None:
    planes = []
    for seed, name in ((1, "tsne-n20"), (1, "tsne-n20"), (2, "tsne-n20-seed-2")):
        assert gmmc("tsne", "--seed", seed, "--n", 20).exit_code == 0
        planes.append(saved(run, name)["plane"])
    assert np.array_equal(planes[0], planes[1])
    assert not np.array_equal(planes[0], planes[2])


@pytest.mark.parametrize(
    ("words", "n", "name"), [(("--n", 20), 20, "tsne-n20"), (("--split", "train"), 54, "tsne-train"), (("--n", 9999), 30, "tsne")]
)
def test_split_and_n_choose_the_images(words: tuple[object, ...], n: int, name: str, tsne: Gmmc, run: Run) -> None:
    assert json.loads(tsne(*words, "--json").stdout)["n"] == n
    assert len(saved(run, name)["plane"]) == n


def test_other_data_is_embedded_beside_the_runs_own(tsne: Gmmc, run: Run) -> None:
    images, labels = np.random.default_rng(1).integers(0, 256, (30, 8, 8)).astype(np.uint8), np.arange(30) % 3
    np.savez("far.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    document = json.loads(tsne("--data", "npz:far.npz", "--json").stdout)
    assert (document["dataset"], document["n"]) == ("far.npz", 30)
    assert saved(run, "tsne-far.npz-test")["labels"].tolist() == labels.tolist()
    assert run.result("tsne") is None


@pytest.mark.parametrize("origin", ["buffer", "noise"])
def test_samples_are_crosses_beside_the_images_and_do_not_count(origin: str, tsne: Gmmc, run: Run) -> None:
    tsne()
    plain, name = run.result("tsne"), {"buffer": "tsne-samples-2-per-class", "noise": "tsne-samples-2-per-class-noise"}[origin]
    document = json.loads(tsne("--per-class", 2, "--from", origin, "--json").stdout)
    assert (run.result("tsne"), run.result(name)) == (plain, document)
    arrays = saved(run, name)
    assert (document["n"], document["protocol"]["samples"]["from"], document["protocol"]["samples"]["n"]) == (30, origin, 6)
    assert arrays["sampled"].tolist() == [False] * 30 + [True] * 6
    assert arrays["labels"][30:].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(arrays["plane"]) == 36
    table = np.genfromtxt(run.path / "results" / f"{name}.csv", delimiter=",", names=True)
    assert table["sample"].tolist() == arrays["sampled"].tolist()


def test_two_runs_stand_side_by_side_in_one_picture_of_the_first(tsne: Gmmc, run: Run, drawn: list[Figure]) -> None:
    other = twin(run)
    assert tsne("--run", run.id).exit_code == 0
    assert drawn.pop()
    result = tsne("--run", run.id, "--run", other.id)
    assert result.exit_code == 0
    assert len(drawn) == 1
    assert [axis.get_title().splitlines()[0] for axis in drawn[0].axes] == [run.id, other.id]
    paths = [Path(line) for line in result.stdout.splitlines() if line.startswith("runs/")]
    assert paths == [
        *(run.path / "figures" / f"tsne-beside-0-twin.{suffix}" for suffix in ("png", "svg")),
        *(each.path / "results" / f"tsne.{suffix}" for each in (run, other) for suffix in ("npz", "csv")),
    ]
    assert all(path.is_file() for path in paths)
    assert {path.name for path in (run.path / "figures").glob("tsne*.png")} == {"tsne.png", "tsne-beside-0-twin.png"}
    assert not (other.path / "figures" / "tsne-beside-0-twin.png").exists()


def test_two_runs_as_json_are_one_object_with_a_result_each(tsne: Gmmc, run: Run) -> None:
    other = twin(run)
    document = json.loads(tsne("--run", run.id, "--run", other.id, "--json").stdout)
    assert document["runs"] == [run.result("tsne"), other.result("tsne")]
    assert [one["run"] for one in document["runs"]] == [run.id, other.id]
    assert (document["schema"], document["command"]) == (1, "tsne")


@pytest.mark.parametrize("out", ["new/fig1.png", "fig1.svg"])
def test_out_says_where_to_draw(out: str, tsne: Gmmc, run: Run) -> None:
    assert out in tsne("--out", out).stdout.splitlines()
    assert Path(out).is_file()
    assert not (run.path / "figures" / "tsne.png").exists()


def test_before_the_end_of_training_there_are_features_already(tsne: Gmmc, run: Run) -> None:
    rewrite(run, gamma2=None)
    assert tsne().exit_code == 0


def test_weights_that_are_not_finite_exit_5(tsne: Gmmc, run: Run) -> None:
    rewrite(run, weights=nan)
    result = tsne()
    assert (result.exit_code, result.stdout) == (5, "")
    assert "the model's logits are not finite for 30 of 30 images" in result.stderr


def test_runs_of_other_classes_do_not_share_a_picture(tsne: Gmmc, run: Run) -> None:
    other = twin(run)
    rewrite(other, class_names=["ash", "elm", "oak"])
    result = tsne("--run", run.id, "--run", other.id)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "these runs know different classes" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "digits"), "digits has 10 classes, run {run} knows 3"),
        (("--data", "digit"), "did you mean digits?"),
        (("--per-class", 5), "the buffer holds 4 images of a class, not 5"),
        (("--n", 8), "says nothing"),
    ],
)
def test_what_cannot_be_meant_exits_2_in_one_sentence_and_a_hint(words: tuple[object, ...], message: str, tsne: Gmmc, run: Run) -> None:
    result = tsne(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("gmmc: error: ")
    assert message.format(run=run.id) in sentence + hint
    assert "--n 5" not in result.stderr  # what was said is --per-class 5


@pytest.mark.parametrize("words", [("--n", 1), ("--per-class", -1), ("--split", "val"), ("--from", "x")])
def test_wrong_usage_exits_2(words: tuple[object, ...], tsne: Gmmc) -> None:
    result = tsne(*words)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("words", [("--run", "1999"), ("--runs-dir", "nowhere")])
def test_a_run_that_is_not_there_exits_1(words: tuple[str, ...], tsne: Gmmc) -> None:
    result = tsne(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert ("train one first" if "nowhere" in words else "`gmmc runs ls` lists all 1") in result.stderr


def test_samples_of_a_run_without_chains_come_from_noise_only(tsne: Gmmc, run: Run) -> None:
    rewrite(run)
    result = tsne("--per-class", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "use --from noise" in result.stderr
    assert tsne("--per-class", 1, "--from", "noise").exit_code == 0


def test_the_features_of_another_space_have_a_result_of_their_own(gmmc: Gmmc, run: Run, drawn: list[Figure]) -> None:
    own, pixels = (json.loads(gmmc("tsne", *words, "--json", "-q").stdout) for words in ((), ("--features", "pixels")))
    assert run.result("tsne") == own
    assert run.result("tsne pixels") == pixels
    assert [result["protocol"]["features"] for result in (own, pixels)] == ["the run's own", "pixels in [-1, 1]"]
    assert pixels["values"]["trustworthiness"] != own["values"]["trustworthiness"]


def test_no_such_space_exits_2(gmmc: Gmmc, run: Run) -> None:
    result = gmmc("tsne", "--features", "pixles")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no feature space 'pixles'" in result.stderr
