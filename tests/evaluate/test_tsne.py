import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits import KEYS
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness

from gmmcli.core.buffer import decode
from gmmcli.errors import RecipeError
from gmmcli.evaluate import plots
from gmmcli.evaluate.measured import Measured
from gmmcli.evaluate.subject import Subject
from gmmcli.evaluate.tsne import Embedding, tsne
from gmmcli.metrics.outputs import outputs
from gmmcli.run import Run
from gmmcli.types import to_bytes

N = 50

pytestmark = pytest.mark.usefixtures("undrawn")


def some(run: Run, **more: Any) -> Subject:
    return Subject.open(run.path, n=N, **more)


def saved(run: Run, name: str = f"tsne-n{N}") -> dict[str, np.ndarray]:
    with np.load(run.path / "results" / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def leave_one_out(points: np.ndarray, labels: np.ndarray) -> float:
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    votes = [np.bincount(labels[nearest]) for nearest in distances.argsort(1)[:, :5]]
    return float(np.mean([vote.argmax() == label for vote, label in zip(votes, labels, strict=True)]))


@pytest.fixture
def unembedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plane is that of the first two features: t-SNE takes longer than all the rest."""
    monkeypatch.setattr("gmmcli.evaluate.tsne.embed", lambda features, seed: features[:, :2].numpy())


@pytest.fixture
def embedded(run: Run) -> tuple[Subject, Measured]:
    subject = some(run)
    (measured,) = tsne([subject], Embedding())
    return subject, measured


def test_a_result_has_its_keys_and_is_saved_as_it_is_returned(embedded: tuple[Subject, Measured]) -> None:
    subject, measured = embedded
    result = measured.result
    assert list(result) == KEYS
    assert (result["command"], result["run"], result["step"], result["n"]) == ("tsne", subject.run.id, 20, N)
    figures = {"trustworthiness", "knn_accuracy", "knn_accuracy_features"}
    assert set(result["values"]) == figures | {f"{name}_ci95" for name in figures}
    assert "samples" not in result["protocol"]
    path = subject.run.path / "results" / f"tsne-n{N}.json"
    assert json.loads(path.read_text()) == result
    assert all(file.is_file() for file in measured.pictures)
    assert measured.pictures[-2:] == [path.with_suffix(".npz"), path.with_suffix(".csv")]


def test_the_figures_follow_from_the_plane_beside_them(embedded: tuple[Subject, Measured]) -> None:
    subject, measured = embedded
    arrays = saved(subject.run)
    features, labels = outputs(subject.model, subject.images.images).features.numpy(), subject.images.labels.numpy()
    assert np.array_equal(arrays["labels"], labels)
    assert np.array_equal(arrays["images"], subject.images.images.numpy())
    assert not arrays["sampled"].any()
    values = measured.result["values"]
    assert values["trustworthiness"] == pytest.approx(trustworthiness(features, arrays["plane"], n_neighbors=5), abs=1e-6)
    for name, points in (("knn_accuracy", arrays["plane"]), ("knn_accuracy_features", features)):
        assert values[name] == pytest.approx(leave_one_out(points, labels))


@pytest.mark.usefixtures("unembedded")
def test_the_table_has_the_numbers_of_the_archive(run: Run) -> None:
    tsne([some(run)], Embedding(per_class=1))
    name = f"tsne-samples-1-per-class-n{N}"
    path = run.path / "results" / f"{name}.csv"
    assert path.read_text().splitlines()[0] == "x,y,label,sample"
    table, arrays = np.loadtxt(path, delimiter=",", skiprows=1), saved(run, name)
    assert table.shape == (N + 10, 4)
    np.testing.assert_allclose(table[:, :2], arrays["plane"], rtol=1e-5)
    assert np.array_equal(table[:, 2], arrays["labels"])
    assert np.array_equal(table[:, 3], arrays["sampled"])


def test_the_same_seed_gives_the_same_plane(embedded: tuple[Subject, Measured]) -> None:
    subject, measured = embedded
    plane = saved(subject.run)["plane"]
    (again,) = tsne([some(subject.run)], Embedding())
    assert again == measured
    assert np.array_equal(saved(subject.run)["plane"], plane)


def test_the_seed_is_that_of_the_plane(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("gmmcli.evaluate.tsne.embed", lambda features, seed: seeds.append(seed) or features[:, :2].numpy())
    (measured,) = tsne([some(run)], Embedding(seed=7))
    assert seeds == [measured.result["protocol"]["seed"]] == [7]


@pytest.mark.usefixtures("unembedded")
@pytest.mark.parametrize(("per_class", "drawn"), [(1, 10), (2, 20)])
def test_samples_lie_beside_the_images_as_many_of_each_class_but_are_not_judged(per_class: int, drawn: int, run: Run) -> None:
    (measured,) = tsne([some(run)], Embedding(per_class=per_class))
    arrays = saved(run, f"tsne-samples-{per_class}-per-class-n{N}")
    assert arrays["sampled"].sum() == drawn
    assert np.array_equal(arrays["sampled"], np.arange(N + drawn) >= N)
    assert np.bincount(arrays["labels"][N:]).tolist() == [drawn // 10] * 10
    assert measured.result["n"] == N
    assert measured.result["protocol"]["samples"] == {"from": "buffer", "seed": 1, "n": drawn}
    assert measured.result["values"]["knn_accuracy"] == pytest.approx(leave_one_out(arrays["plane"][:N], arrays["labels"][:N]))


def test_the_features_embedded_are_those_of_the_images_and_of_the_samples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def plane(features: torch.Tensor, seed: int) -> np.ndarray:
        seen.append(features)
        return features[:, :2].numpy()

    monkeypatch.setattr("gmmcli.evaluate.tsne.embed", plane)
    subject = some(run)
    tsne([subject], Embedding(per_class=10))
    (features,) = seen
    buffer = outputs(subject.model, to_bytes(decode(run.buffer().images.flatten(0, 1)))).features
    torch.testing.assert_close(features[:N], outputs(subject.model, subject.images.images).features)
    images = saved(run, f"tsne-samples-10-per-class-n{N}")["images"]
    assert images.dtype == np.uint8
    torch.testing.assert_close(outputs(subject.model, torch.from_numpy(images)).features, features)
    by_row = [sorted(map(tuple, rows.double().round(decimals=4).tolist())) for rows in (features[N:], buffer)]
    np.testing.assert_allclose(*by_row, atol=1e-3)


@pytest.mark.usefixtures("unembedded")
def test_no_samples_are_drawn_where_none_are_asked_for(run: Run) -> None:
    (measured,) = tsne([some(run)], Embedding(per_class=0))
    assert "samples" not in measured.result["protocol"]
    assert len(saved(run)["labels"]) == N


@pytest.mark.usefixtures("unembedded")
def test_more_samples_than_the_buffer_holds(run: Run) -> None:
    with pytest.raises(RecipeError, match="the buffer holds 10 images of a class, not 11"):
        tsne([some(run)], Embedding(per_class=11))


@pytest.mark.usefixtures("unembedded")
def test_several_runs_stand_side_by_side_each_with_a_result_of_its_own(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(plots, "scatter", lambda planes, names: drawn.append(planes) or Figure())
    other = Run(run.path.with_name("another"))
    run.path.rename(tmp_path / "moved")
    for target in (run.path, other.path):
        target.symlink_to(tmp_path / "moved")
    first, second = tsne([some(run), some(other)], Embedding())
    (planes,) = drawn
    assert [title.splitlines()[0] for title in planes] == [run.id, "another"]
    assert all("step 20" in title for title in planes)
    assert [measured.result["run"] for measured in (first, second)] == [run.id, "another"]
    assert [(path.parent, path.suffix) for path in first.pictures[:2]] == [(run.path / "figures", ".png"), (run.path / "figures", ".svg")]
    assert [path.suffix for path in second.pictures] == [".npz", ".csv"]


@pytest.mark.usefixtures("unembedded")
@pytest.mark.parametrize("out", [None, "new/fig1.png"])
def test_the_picture_lies_in_the_first_run_or_where_it_is_asked_for(out: str | None, run: Run, tmp_path: Path) -> None:
    (measured,) = tsne([some(run)], Embedding(), out=tmp_path / out if out else None)
    pictures = measured.pictures[:2]
    assert [path.suffix for path in pictures] == [".png", ".svg"]
    assert {path.parent for path in pictures} == {tmp_path / "new" if out else run.path / "figures"}
    assert {path.stem for path in pictures} == {"fig1"} or not out
    assert all(path.is_file() for path in measured.pictures)


@pytest.mark.usefixtures("unembedded")
def test_another_split_has_a_name_of_its_own(run: Run) -> None:
    (own,), (other,) = tsne([some(run)], Embedding()), tsne([some(run, split="validation")], Embedding())
    assert len(saved(run, f"tsne-validation-n{N}")["labels"]) == N
    assert not set(own.pictures) & set(other.pictures)


@pytest.mark.parametrize("n", [2, 10])
def test_a_handful_of_images_has_no_neighbourhoods(n: int, run: Run) -> None:
    with pytest.raises(RecipeError, match=f"t-SNE of {n} images"):
        tsne([Subject.open(run.path, n=n)], Embedding())


def test_what_is_drawn_is_a_picture(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("gmmcli.evaluate.tsne.embed", lambda features, seed: features[:, :2].numpy())
    (measured,) = tsne([some(run)], Embedding(per_class=1))
    png, svg = measured.pictures[:2]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text(encoding="utf-8")
