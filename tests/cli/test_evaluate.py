import json
import shutil
from collections.abc import Callable
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
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score
from typer.testing import Result

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.classifier import predict
from gmmcli.data.dataset import Split, chunks
from gmmcli.data.downloaded import MNIST
from gmmcli.metrics import outputs as passes
from gmmcli.run import Run

Evaluate = Callable[..., dict[str, Any]]
UNIFORM = ("--against", "uniform", "--score", "log_px")


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the trained run in ./runs, on a machine without Inception weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda: None)
    return Run(Path(shutil.copytree(trained.path, Path("runs") / trained.path.name)))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty, their files too: drawing takes longer than measuring."""
    for figure in ("confusion", "reliability", "histograms"):
        monkeypatch.setattr(f"gmmcli.evaluate.plots.{figure}", lambda *values: Figure())
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])


@pytest.fixture
def evaluate(gmmc: Gmmc, run: Run, undrawn: None) -> Evaluate:
    def evaluated(*words: object) -> dict[str, Any]:
        result = gmmc("eval", *words, "--json")
        assert result.exit_code == 0, result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return evaluated


def rewrite(run: Run, *, step: int = 0, weights: float | None = None, buffer: bool = True, best_step: int = 6, **card: Any) -> None:
    """Save the newest checkpoint again with one thing changed."""
    old = run.checkpoint()
    tensors = old.tensors("model")
    if weights is not None:
        tensors = {key: torch.full_like(t, weights) if t.is_floating_point() else t for key, t in tensors.items()}
    parts = {"model": Part(tensors, old.metadata("model") | {key: json.dumps(value) for key, value in card.items()})}
    if buffer:
        parts["buffer"] = Part(old.tensors("buffer"), {})
    Checkpoint.save(run.path / "checkpoints", step or old.step, parts, old.progress | {"best_step": best_step})


def write_npz(path: str, images: np.ndarray, labels: np.ndarray, **more: np.ndarray) -> str:
    """The same images as all three splits."""
    arrays = {f"{split}_{kind}": array for split in ("train", "val", "test") for kind, array in (("images", images), ("labels", labels))}
    np.savez(path, **arrays, **more)  # type: ignore[arg-type]
    return f"npz:{path}"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def saved(run: Run, name: str) -> dict[str, np.ndarray]:
    with np.load(run.path / "results" / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def assert_opens(path: Path) -> None:
    if path.suffix == ".svg":
        assert ElementTree.parse(path).getroot().tag.endswith("}svg")
        return
    with Image.open(path) as picture:
        assert (picture.format, path.suffix) == ("PNG", ".png")
        picture.load()


def pictures(result: Result) -> list[Path]:
    """The paths among the lines of an answer in words."""
    assert result.exit_code == 0, result.stderr
    return [Path(line) for line in result.stdout.splitlines() if line.endswith((".png", ".svg"))]


@pytest.mark.parametrize("words", [("accuracy",), ("calibrate",), ("ood", *UNIFORM)])
def test_the_pictures_are_pictures(words: tuple[str, ...], gmmc: Gmmc, run: Run) -> None:
    paths = pictures(gmmc("eval", *words, "-q"))
    assert paths
    for path in paths:
        assert_opens(path)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("accuracy",), ["eval-accuracy.png", "eval-accuracy.svg"]),
        (("accuracy", "--split", "train"), ["eval-accuracy-train.png", "eval-accuracy-train.svg"]),
        (("calibrate",), ["eval-calibrate.png", "eval-calibrate.svg"]),
        (("ood", *UNIFORM), ["eval-ood-uniform-log_px.png", "eval-ood-uniform-log_px.svg"]),
        (
            ("all", "--against", "uniform"),
            [f"eval-{name}" for name in ("accuracy.png", "accuracy.svg", "calibrate.png", "calibrate.svg")]
            + ["eval-ood-uniform.png", "eval-ood-uniform.svg", "eval-generate-pixels.png"],
        ),
    ],
)
def test_pictures_lie_in_the_run_at_the_paths_on_stdout(
    words: tuple[str, ...], names: list[str], gmmc: Gmmc, run: Run, undrawn: None
) -> None:
    shutil.rmtree(run.path / "figures")
    paths = pictures(gmmc("eval", *words, "-q"))
    assert paths == [run.path / "figures" / name for name in names]
    assert sorted(paths) == sorted((run.path / "figures").iterdir())


@pytest.mark.parametrize("out", ["new/a.png", "a.svg"])
@pytest.mark.parametrize("words", [("accuracy",), ("calibrate",), ("ood", *UNIFORM)])
def test_out_says_where_to_draw(words: tuple[str, ...], out: str, gmmc: Gmmc, run: Run, undrawn: None) -> None:
    shutil.rmtree(run.path / "figures")
    paths = pictures(gmmc("eval", *words, "-q", "--out", out))
    assert Path(out) in paths
    assert all(path.is_file() for path in paths)
    assert not (run.path / "figures").exists()


def test_accuracy_is_that_of_the_training_and_of_the_logits_saved_beside_it(evaluate: Evaluate, run: Run, trained: Trained) -> None:
    document = evaluate("accuracy")
    assert document == run.result("eval accuracy")
    values, arrays = document["values"], saved(run, "eval-accuracy")
    probs = softmax(arrays["logits"].astype(np.float64) / document["protocol"]["gamma2"], axis=1)
    assert values["accuracy"] == trained.answer["values"]["accuracy"]
    assert values["confusion"] == confusion_matrix(arrays["labels"], arrays["logits"].argmax(1), labels=range(3)).tolist()
    assert values["nll"] == pytest.approx(log_loss(arrays["labels"], probs, labels=range(3)))
    assert values["brier"] == pytest.approx(np.square(probs - np.eye(3)[arrays["labels"]]).sum(1).mean())
    assert document["protocol"]["gamma2"] == run.card().gamma2
    assert {name: row["n"] for name, row in values["per_class"].items()} == {"cat": 10, "dog": 10, "fox": 10}


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, scale: float) -> float:
    probs = softmax(logits.astype(np.float64) / scale, axis=1)
    confidence, right = probs.max(1), probs.argmax(1) == labels
    bins = np.ceil(20 * confidence)
    return float(sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)))


def test_calibration_is_given_at_three_scales_and_headed_by_gamma(evaluate: Evaluate, run: Run) -> None:
    document = evaluate("calibrate")
    assert document == run.result("eval calibrate")
    values, arrays = document["values"], saved(run, "eval-calibrate")
    scales = {name: variant["scale"] for name, variant in values["variants"].items()}
    assert scales == {"unit": 1.0, "gamma": run.card().gamma2, "temperature": values["temperature"]}
    for name, variant in values["variants"].items():
        assert variant["ece"] == pytest.approx(expected_calibration_error(**arrays, scale=scales[name]))
        assert sum(b["n"] for b in variant["bins"]) == 30
    assert (values["ece"], values["nll"]) == (values["variants"]["gamma"]["ece"], values["variants"]["gamma"]["nll"])
    assert document["protocol"]["n_validation"] == 6


def test_detection_is_that_of_the_scores_saved_beside_it(evaluate: Evaluate, run: Run) -> None:
    document = evaluate("ood", "--against", "interp", "--against", "noise", "--against", "uniform", "--score", "mass", "--score", "log_px")
    assert document == run.result("eval ood interp noise uniform mass log_px")
    arrays = saved(run, "eval-ood-interp-noise-uniform-mass-log_px")
    assert list(document["values"]) == list(document["protocol"]["sets"]) == ["interp", "uniform", "gaussian"]
    for name, scores in document["values"].items():
        assert list(scores) == ["mass", "log_px"]
        for score, row in scores.items():
            inside, outside = arrays[f"in {score}"], arrays[f"{name} {score}"]
            assert row["auroc"] == pytest.approx(roc_auc_score([1] * len(inside) + [0] * len(outside), [*inside, *outside]))


def test_no_score_tells_a_set_from_itself(evaluate: Evaluate, trained: Trained) -> None:
    (scores,) = evaluate("ood", "--against", f"npz:{trained.recipe.with_suffix('.npz')}")["values"].values()
    assert {score: row["auroc"] for score, row in scores.items()} == pytest.approx(
        dict.fromkeys(("log_px", "max_py", "mass", "max_logit", "energy"), 0.5)
    )


def test_nameless_images_of_one_class_are_brought_to_the_runs_size_and_colour(evaluate: Evaluate, run: Run) -> None:
    images = noise(20, 16, 16, 3)
    np.savez(
        "far.npz", train_images=images, train_labels=np.zeros(20, np.uint8), test_images=images[:15], test_labels=np.zeros(15, np.uint8)
    )
    document = evaluate("ood", "--against", "npz:far.npz", "--score", "log_px")
    about = document["protocol"]["sets"]["npz:far.npz"]
    assert about["n"] == 15
    assert "grey by luma" in about["images"]
    assert "resized to 8 x 8" in about["images"]
    assert 0 <= document["values"]["npz:far.npz"]["log_px"]["auroc"] <= 1


def test_pictures_in_a_folder_need_no_classes(evaluate: Evaluate, run: Run) -> None:
    Path("faces").mkdir()
    for i, array in enumerate(noise(4, 20, 12, 3)):
        Image.fromarray(array).save(f"faces/{i}.png")
    document = evaluate("ood", "--against", "folder:faces", "--score", "max_logit")
    assert document["protocol"]["sets"]["folder:faces"]["n"] == 4
    assert list(document["values"]["folder:faces"]) == ["max_logit"]


MISSING = {"celeba": "celeba is not in data/celeba", "npz:gone.npz": "no file at gone.npz", "folder:gone": "no folder or .zip at gone"}


@pytest.mark.parametrize(("name", "message"), MISSING.items())
@pytest.mark.parametrize("verb", ["ood", "all"])
def test_a_set_that_is_asked_for_and_missing_exits_3(verb: str, name: str, message: str, gmmc: Gmmc, run: Run, undrawn: None) -> None:
    before = run.results()
    result = gmmc("eval", verb, "--against", "uniform", "--against", name)
    assert (result.exit_code, result.stdout) == (3, "")
    assert message in result.stderr
    assert run.results() == before  # told before anything is measured


@pytest.mark.parametrize("verb", ["ood", "all"])
def test_nothing_is_downloaded_unasked_and_what_is_left_out_is_said(
    verb: str, gmmc: Gmmc, run: Run, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmmcli.data.remote.urlopen", lambda *words, **more: pytest.fail("the network was used"))
    result = gmmc("eval", verb, "--json", "-q")
    assert result.exit_code == 0
    values = json.loads(result.stdout)["values"]
    assert list(values if verb == "ood" else values["ood"]) == ["interp", "uniform", "gaussian", "digits"]
    line = "gmmc: warning: not compared with mnist (not on disk): `gmmc data download mnist` (12 MB)"
    assert result.stderr.splitlines().count(line) == 1


def test_a_default_set_that_is_damaged_is_said_to_be_and_the_rest_is_measured(gmmc: Gmmc, run: Run) -> None:
    for file in MNIST.published.files:
        path = Path("data", file.place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    result = gmmc("eval", "ood", "--score", "log_px", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "mnist is missing: data/MNIST/raw/train-images-idx3-ubyte.gz is damaged" in result.stdout.replace("\n", " ")


@pytest.mark.parametrize(("verb", "split", "n"), [("accuracy", "validation", 6), ("calibrate", "train", 54)])
def test_another_split_is_measured_and_saved_under_its_name(verb: str, split: str, n: int, evaluate: Evaluate, run: Run) -> None:
    of_test = run.result(f"eval {verb}")
    document = evaluate(verb, "--split", split)
    assert (document["split"], document["n"]) == (split, n)
    assert run.result(f"eval {verb} {split}") == document
    assert run.result(f"eval {verb}") == of_test


def test_n_takes_so_many_images_by_the_seed(evaluate: Evaluate, run: Run) -> None:
    evaluate("accuracy")
    every = saved(run, "eval-accuracy")
    drawn = {}
    for seed in (1, 2):
        assert evaluate("accuracy", "--n", 10, "--seed", seed)["n"] == 10
        drawn[seed] = saved(run, "eval-accuracy-n10" + "-seed-2" * (seed == 2))
        for logits, label in zip(drawn[seed]["logits"], drawn[seed]["labels"], strict=True):
            assert np.isclose(every["logits"][every["labels"] == label], logits, rtol=1e-3).all(1).any()
    assert not np.array_equal(drawn[1]["logits"], drawn[2]["logits"])
    assert evaluate("accuracy", "--n", 1000)["n"] == 30


def test_n_holds_for_the_sets_too_and_the_seed_for_what_is_made(evaluate: Evaluate) -> None:
    first, again, other = (evaluate("ood", *UNIFORM, "--n", 10, "--seed", seed) for seed in (1, 1, 2))
    assert (first["n"], first["protocol"]["sets"]["uniform"]["n"]) == (10, 10)
    assert first == again
    assert first["values"] != other["values"]


@pytest.mark.parametrize(("shift", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_other_data_of_the_same_kind_is_measured_beside_the_runs_own(shift: int, accuracy: float, evaluate: Evaluate, run: Run) -> None:
    own, images = run.result("eval accuracy"), noise(40, 8, 8)
    labels = predict(run.model(), torch.from_numpy(images)[:, None]).argmax(1).numpy()
    other = write_npz("other.npz", images, (labels + shift) % 3, class_names=np.array(["cat", "dog", "fox"]))
    document = evaluate("accuracy", "--data", other)
    assert (document["dataset"], document["n"], document["values"]["accuracy"]) == ("other.npz", 40, accuracy)
    assert run.result("eval accuracy other.npz test") == document
    assert run.result("eval accuracy") == own


def test_the_temperature_is_fitted_on_the_runs_own_validation_images_whatever_is_measured(evaluate: Evaluate) -> None:
    other = write_npz("other.npz", noise(40, 8, 8), np.arange(40) % 3)
    own, foreign = evaluate("calibrate"), evaluate("calibrate", "--data", other)
    assert foreign["protocol"] == own["protocol"]
    assert foreign["values"]["temperature"] == own["values"]["temperature"]
    assert foreign["values"]["ece"] != own["values"]["ece"]


def test_all_has_every_part_from_one_pass_over_the_test_images(
    gmmc: Gmmc, run: Run, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counting(model: Any, images: torch.Tensor, *more: Any) -> passes.Outputs:
        seen.append(len(images))
        return passes.outputs(model, images, *more)

    monkeypatch.setattr("gmmcli.evaluate.subject.outputs", counting)
    result = gmmc("eval", "all", "--against", "uniform", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["command"], seen) == (0, "eval all", [30, 6])  # the test images, those of validation
    assert list(document["values"]) == list(document["protocol"]) == ["accuracy", "calibrate", "ood", "generate"]
    results = {result["command"].removeprefix("eval "): result for result in run.results().values()}
    for part, values in document["values"].items():
        measured = results[part]
        assert (measured["values"], measured["protocol"]) == (values, document["protocol"][part])
    assert list(document["values"]["ood"]["uniform"]) == ["log_px", "max_py", "mass", "max_logit", "energy"]
    assert "feature_fid" in document["values"]["generate"]
    assert "measured in pixels: Inception's weights are not there" in result.stderr
    assert run.result("eval all uniform") == document  # one of other sets is another result


def test_all_goes_without_generation_where_there_is_no_buffer(evaluate: Evaluate, run: Run) -> None:
    rewrite(run, buffer=False)
    assert list(evaluate("all", "--against", "uniform")["values"]) == ["accuracy", "calibrate", "ood"]


def test_all_uses_inception_where_it_is_at_hand(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        sha256 = "of no file"

        def features(self, images: torch.Tensor | Split, within: slice) -> torch.Tensor:
            return torch.cat([part.flatten(1)[:, :4].float() for part in chunks(images, 50, within)])

        def class_probs(self, features: torch.Tensor) -> torch.Tensor:
            return features.softmax(1)

    monkeypatch.setattr("gmmcli.metrics.features.inception.load_inception", lambda path: Network())
    monkeypatch.setattr("gmmcli.metrics.features.inception.default_weights", lambda: Path(__file__))
    assert {"fid", "kid", "is_mean"} < evaluate("all", "--against", "uniform")["values"]["generate"].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ood", "--score", "logpx"), "no score 'logpx'"),
        (("ood", "--score", "log_px", "--score", "distance"), "give one of log_px, max_py, mass, max_logit, energy, mahalanobis, knn, vim"),
        (("ood", "--against", "svnh"), "no set of images 'svnh'"),
        (("ood", "--against", "npz"), "no set of images 'npz'"),
        (("all", "--against", "svnh"), "no set of images 'svnh'"),
        (("accuracy", "--data", "npz:wide.npz"), "wide.npz has images of 16 x 16 x 1, run {run} takes 8 x 8 x 1"),
        (("calibrate", "--data", "npz:wide.npz"), "wide.npz has images of 16 x 16 x 1, run {run} takes 8 x 8 x 1"),
        (("accuracy", "--data", "npz:colour.npz"), "colour.npz has images of 8 x 8 x 3, run {run} takes 8 x 8 x 1"),
        (("accuracy", "--data", "npz:four.npz"), "four.npz has 4 classes, run {run} knows 3"),
        (("calibrate", "--data", "npz:four.npz"), "four.npz has 4 classes, run {run} knows 3"),
        (("accuracy", "--data", "digits"), "digits has 10 classes, run {run} knows 3"),
        (("accuracy", "--data", "digit"), "did you mean digits?"),
    ],
)
def test_what_cannot_be_meant_exits_2_in_one_sentence_and_a_hint(
    words: tuple[str, ...], message: str, gmmc: Gmmc, run: Run, undrawn: None
) -> None:
    write_npz("wide.npz", noise(9, 16, 16), np.arange(9) % 3)
    write_npz("colour.npz", noise(9, 8, 8, 3), np.arange(9) % 3)
    write_npz("four.npz", noise(8, 8, 8), np.arange(8) % 4)
    result = gmmc("eval", *words, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("gmmc: error: ")
    assert message.format(run=run.id) in sentence + hint


@pytest.mark.parametrize(
    "words",
    [
        ("accuracy", "--n", 1),
        ("accuracy", "--split", "val"),
        ("accuracy", "--against", "interp"),
        ("ood", "--split", "train"),
        ("all", "--out", "x.png"),
        ("calibrate", "--device", "tpu"),
    ],
)
def test_wrong_usage_exits_2(words: tuple[object, ...], gmmc: Gmmc, run: Run) -> None:
    result = gmmc("eval", *words)
    assert (result.exit_code, result.stdout) == (2, "")


def test_other_data_that_is_missing_exits_3(gmmc: Gmmc, run: Run) -> None:
    result = gmmc("eval", "accuracy", "--data", "npz:gone.npz")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no file at gone.npz" in result.stderr


EVERY = [
    ("accuracy",),
    ("calibrate",),
    ("ood", *UNIFORM),
    ("ood", "--against", "uniform", "--score", "mass"),
    ("all", "--against", "uniform"),
]


@pytest.mark.parametrize("words", EVERY)
def test_before_its_end_a_training_is_evaluated_at_a_gamma2_of_its_own(words: tuple[str, ...], gmmc: Gmmc, run: Run, undrawn: None) -> None:
    whole = run.card().gamma2
    rewrite(run, gamma2=None)
    result = gmmc("eval", *words, "--json")
    assert result.exit_code == 0, result.stderr
    assert f"gmmc: run {run.id} was not finished: gamma^2 is estimated on its training images" in result.stderr.splitlines()
    if words[0] == "calibrate":
        assert json.loads(result.stdout)["protocol"]["gamma2"] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("words", EVERY)
def test_weights_that_are_not_finite_exit_5(words: tuple[str, ...], gmmc: Gmmc, run: Run, undrawn: None) -> None:
    rewrite(run, weights=nan)
    result = gmmc("eval", *words, "-q")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "the model's logits are not finite for 30 of 30 images" in result.stderr


def test_without_a_run_there_is_nothing_to_evaluate(gmmc: Gmmc, tmp_path: Path) -> None:
    result = gmmc("eval", "accuracy", "--runs-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "train one first" in result.stderr


@pytest.mark.parametrize(
    "words", [("calibrate",), ("calibrate", "--json"), ("all", "--against", "uniform"), ("all", "--against", "uniform", "--json")]
)
def test_a_saturated_softmax_is_said_on_stderr_even_when_quiet(words: tuple[str, ...], gmmc: Gmmc, run: Run, undrawn: None) -> None:
    rewrite(run, gamma2=1e-9)
    result = gmmc("eval", *words, "-q")
    assert result.exit_code == 0
    assert "gmmc: warning: at scale gamma, 100.0% of the confidences are exactly 1.0 in float32" in result.stderr
    assert "warning" not in result.stdout


def test_no_saturation_no_word_of_it(gmmc: Gmmc, run: Run, undrawn: None) -> None:
    rewrite(run, gamma2=1e6)
    assert "at scale gamma" not in gmmc("eval", "calibrate").stderr


def test_best_is_the_checkpoint_of_the_best_validation_accuracy(evaluate: Evaluate, run: Run) -> None:
    rewrite(run, step=3, gamma2=7.0)
    rewrite(run, best_step=3)
    last, best = evaluate("accuracy"), evaluate("accuracy", "--best")
    assert (last["step"], best["step"]) == (6, 3)
    assert last["protocol"]["gamma2"] != best["protocol"]["gamma2"] == 7.0


def test_which_run_is_said_on_stderr_unless_quiet(gmmc: Gmmc, run: Run, undrawn: None) -> None:
    assert gmmc("eval", "accuracy").stderr.splitlines()[0] == f"gmmc: run {run.path}, step 6"
    assert gmmc("eval", "accuracy", "--quiet").stderr == ""


def test_the_table_has_what_the_object_has(gmmc: Gmmc, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    values = evaluate("accuracy")["values"]
    low, high = (100 * edge for edge in values["ci95"])
    shown = gmmc("eval", "accuracy", "-q").stdout
    assert f"{100 * values['accuracy']:.2f}% [{low:.2f}, {high:.2f}]" in shown
    for name, row in values["per_class"].items():
        assert f"class {name}" in shown
        assert f"{100 * row['accuracy']:.2f}%" in shown


def test_no_figure_is_cut_off_at_the_edge_of_a_terminal(gmmc: Gmmc, run: Run, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "…" not in gmmc("eval", "calibrate").stdout


@pytest.mark.parametrize("name", ["[cat]", "[/]", "$_$"])
def test_a_class_is_shown_by_its_name_whatever_it_is(name: str, gmmc: Gmmc, run: Run) -> None:
    rewrite(run, class_names=[name, "dog", "fox"])
    result = gmmc("eval", "accuracy")
    assert result.exit_code == 0
    assert f"class {name}" in result.stdout


def test_a_set_is_shown_by_its_name_whatever_it_is(gmmc: Gmmc, run: Run, undrawn: None) -> None:
    far = write_npz("[far].npz", noise(6, 8, 8), np.zeros(6, np.uint8))
    assert "npz:[far].npz" in gmmc("eval", "ood", "--against", far, "--score", "max_logit").stdout
