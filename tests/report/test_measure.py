import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from gmmcli.data.dataset import Split
from gmmcli.errors import RecipeError, RunError
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs
from gmmcli.metrics.scores import SCORES
from gmmcli.report import measure
from gmmcli.report.measure import Measured
from gmmcli.run import Run

KEYS = ["schema", "command", "run", "step", "dataset", "split", "n", "protocol", "values"]
ALMOST = {"rel": 1e-6, "abs": 1e-6}

pytestmark = pytest.mark.usefixtures("undrawn")


def saved(run: Run, name: str) -> dict[str, np.ndarray]:
    with np.load(run.path / "results" / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def nll(logits: np.ndarray, labels: np.ndarray, scale: float) -> float:
    return -float(log_softmax(logits.astype(np.float64) / scale, axis=1)[np.arange(len(labels)), labels].mean())


def ece(logits: np.ndarray, labels: np.ndarray, scale: float) -> float:
    """Eq. 12 image by image."""
    probs = np.exp(log_softmax(logits.astype(np.float64) / scale, axis=1))
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probs, labels, strict=True):
        bins.setdefault(int(np.ceil(20 * row.max())), []).append((row.max(), row.argmax() == label))
    return sum(abs(sum(right for _, right in inside) - sum(sure for sure, _ in inside)) for inside in bins.values()) / len(labels)


def ask(subject: Subject, verb: str, **more: Any) -> Measured:
    return {"accuracy": measure.accuracy, "calibrate": measure.calibrate, "ood": measure.ood}[verb](subject, **more)  # type: ignore[operator, no-any-return]


NAMES = {"accuracy": "eval accuracy", "calibrate": "eval calibrate", "ood": "eval ood uniform log_px"}
VERBS: list[tuple[str, dict[str, Any]]] = [("accuracy", {}), ("calibrate", {}), ("ood", {"sets": ["uniform"], "scores": ["log_px"]})]


@pytest.mark.parametrize(("verb", "more"), VERBS)
def test_a_result_has_its_keys_and_is_saved_as_it_is_returned(verb: str, more: dict[str, Any], subject: Subject) -> None:
    result = ask(subject, verb, **more).result
    assert list(result) == KEYS
    about = [result[key] for key in ("schema", "command", "run", "step", "dataset", "split", "n")]
    assert about == [1, f"eval {verb}", subject.run.id, 20, subject.dataset.title, "test", 120]
    assert result["protocol"]["gamma2"] == subject.gamma2
    text = (subject.run.path / "results" / f"{NAMES[verb].replace(' ', '-')}.json").read_text()
    assert json.loads(text) == result == subject.run.result(NAMES[verb])
    assert "NaN" not in text and "Infinity" not in text


@pytest.mark.parametrize(("verb", "more"), VERBS)
def test_the_same_subject_gives_the_same_result(verb: str, more: dict[str, Any], run: Run) -> None:
    assert ask(Subject.open(run.path), verb, **more).result == ask(Subject.open(run.path), verb, **more).result


@pytest.mark.parametrize(("verb", "more"), VERBS)
def test_without_a_variance_nothing_is_measured(verb: str, more: dict[str, Any], subject: Subject) -> None:
    subject.model.gamma2 = None
    before = list((subject.run.path).rglob("*"))
    with pytest.raises(RunError, match=subject.run.id):
        ask(subject, verb, **more)
    assert list((subject.run.path).rglob("*")) == before


def test_accuracy_follows_from_the_logits_beside_it(subject: Subject) -> None:
    values = measure.accuracy(subject).result["values"]
    arrays = saved(subject.run, "eval-accuracy")
    logits, labels = arrays["logits"], arrays["labels"]
    assert np.array_equal(labels, subject.dataset.test.labels.numpy())
    assert 0.1 < values["accuracy"] < 1
    assert values["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean(), **ALMOST)
    assert values["nll"] == pytest.approx(nll(logits, labels, subject.gamma2), **ALMOST)
    probs = np.exp(log_softmax(logits.astype(np.float64) / subject.gamma2, axis=1))
    assert values["brier"] == pytest.approx(np.square(probs - np.eye(10)[labels]).sum(1).mean(), **ALMOST)
    assert values["confusion"] == confusion_matrix(labels, logits.argmax(1), labels=range(10)).tolist()
    assert list(values["per_class"]) == list("0123456789")


def test_the_logits_are_those_of_the_model(subject: Subject) -> None:
    measure.accuracy(subject)
    expected = outputs(subject.run.model(), subject.dataset.test.images).logits
    assert np.array_equal(saved(subject.run, "eval-accuracy")["logits"], expected.numpy())


def test_calibration_follows_from_the_logits_beside_it_at_every_scale(subject: Subject) -> None:
    values = measure.calibrate(subject).result["values"]
    arrays = saved(subject.run, "eval-calibrate")
    assert {name: variant["scale"] for name, variant in values["variants"].items()} == {
        "unit": 1.0,
        "gamma": subject.gamma2,
        "temperature": values["temperature"],
    }
    for variant in values["variants"].values():
        assert variant["ece"] == pytest.approx(ece(**arrays, scale=variant["scale"]), **ALMOST)
        assert variant["nll"] == pytest.approx(nll(**arrays, scale=variant["scale"]), **ALMOST)
        assert sum(b["n"] for b in variant["bins"]) == 120
    assert (values["ece"], values["nll"]) == (values["variants"]["gamma"]["ece"], values["variants"]["gamma"]["nll"])


def test_the_temperature_is_the_best_one_for_the_validation_images(subject: Subject) -> None:
    result = measure.calibrate(subject).result
    images, labels = subject.dataset.validation
    logits = outputs(subject.model, images).logits.numpy()
    best = minimize_scalar(lambda t: nll(logits, labels.numpy(), np.exp(t)), bounds=(-14, 14), method="bounded", options={"xatol": 1e-8})
    assert result["values"]["temperature"] == pytest.approx(np.exp(best.x), rel=1e-4)
    assert (result["protocol"]["n_validation"], result["protocol"]["temperature_fitted"]) == (60, True)


def test_where_every_validation_image_is_right_gamma_stands_in_and_a_warning_says_so(subject: Subject) -> None:
    images = subject.dataset.validation.images
    perfect = Split(images, outputs(subject.model, images).logits.argmax(1))
    measured = measure.calibrate(replace(subject, dataset=replace(subject.dataset, validation=perfect)))
    assert measured.result["values"]["temperature"] == subject.gamma2
    assert measured.result["protocol"]["temperature_fitted"] is False
    assert any("no temperature can be fitted" in warning for warning in measured.warnings)


def test_a_saturated_softmax_is_warned_of(subject: Subject) -> None:
    for gamma2, expected in ((1e6, False), (1e-9, True)):
        subject.model.gamma2 = gamma2
        warned = [warning for warning in measure.calibrate(subject).warnings if "saturated" in warning]
        assert any("scale gamma" in warning for warning in warned) == expected


def test_detection_follows_from_the_scores_beside_it(subject: Subject) -> None:
    values = measure.ood(subject, ["interp", "noise"]).result["values"]
    arrays = saved(subject.run, "eval-ood-interp-noise")
    assert list(values) == ["interp", "uniform", "gaussian"]
    assert set(arrays) == {f"{name} {score}" for name in ("in", *values) for score in SCORES}
    for name, scores in values.items():
        assert list(scores) == list(SCORES)
        for score, row in scores.items():
            inside, outside = arrays[f"in {score}"], arrays[f"{name} {score}"]
            truth, both = np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate([inside, outside])
            assert row["auroc"] == pytest.approx(roc_auc_score(truth, both), **ALMOST)
            assert row["aupr_in"] == pytest.approx(average_precision_score(truth, both), **ALMOST)
            assert row["aupr_out"] == pytest.approx(average_precision_score(1 - truth, -both), **ALMOST)


def test_the_scores_are_those_of_the_own_images_in_their_order(subject: Subject) -> None:
    measure.ood(subject, ["uniform"])
    arrays = saved(subject.run, "eval-ood-uniform")
    own = outputs(subject.model, subject.dataset.test.images, subject.gamma2)
    assert own.mass is not None
    expected = {
        "log_px": np.logaddexp.reduce(own.logits.double().numpy() / subject.gamma2, axis=1),
        "mass": -own.mass.double().numpy(),
        "distance": own.logits.double().numpy().max(1),
    }
    for score, values in expected.items():
        np.testing.assert_allclose(arrays[f"in {score}"], values, rtol=1e-9)


def test_a_set_twice_is_measured_once_and_in_the_order_asked_for(subject: Subject) -> None:
    result = measure.ood(subject, ["gaussian", "noise", "interp", "gaussian"], ["distance"]).result
    assert list(result["values"]) == list(result["protocol"]["sets"]) == ["gaussian", "uniform", "interp"]
    assert result["protocol"]["sets"]["interp"]["n"] == 60  # half of so few
    assert result["protocol"]["in_distribution"] == f"{subject.dataset.title} test"


def test_the_default_sets_are_those_of_the_data_and_its_kind(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(measure, "default_sets", lambda *about: asked.append(about) or ["uniform"])
    assert list(measure.ood(subject, scores=["log_px"]).result["values"]) == ["uniform"]
    assert asked == [(subject.dataset, "npz")]


def test_missing_sets_are_reported_and_the_rest_is_measured(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = measure.ood(subject, ["celeba", "uniform", "npz:gone.npz", "folder:gone"], ["log_px"]).result
    assert list(result["values"]) == ["celeba", "uniform", "npz:gone.npz", "folder:gone"]
    assert list(result["values"]["uniform"]) == ["log_px"]
    for name in ("celeba", "npz:gone.npz", "folder:gone"):
        missing = result["values"][name]
        assert set(missing) == {"missing", "hint"}
        assert missing == result["protocol"]["sets"][name]
        assert missing["missing"] and missing["hint"]
    assert set(saved(subject.run, "eval-ood-celeba-uniform-gone.npz-gone-log_px")) == {"in log_px", "uniform log_px"}


def test_other_sets_have_a_result_of_their_own(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "default_sets", lambda *about: ["gaussian"])
    usual, other = (measure.ood(subject, sets).result for sets in (None, ["uniform"]))
    assert (subject.run.result("eval ood"), subject.run.result("eval ood uniform")) == (usual, other)


def test_with_every_set_missing_there_is_a_result_and_no_picture(subject: Subject) -> None:
    measured = measure.ood(subject, ["npz:gone.npz"])
    assert measured.pictures == []
    assert subject.run.result("eval ood gone.npz") == measured.result
    assert not (subject.run.path / "figures").exists()


def test_an_unknown_set_is_an_error_and_nothing_is_saved(subject: Subject) -> None:
    with pytest.raises(RecipeError, match="no set of images 'svnh'"):
        measure.ood(subject, ["uniform", "svnh"], ["log_px"])
    assert subject.run.results() == {}


def test_n_holds_for_the_others_too(run: Run) -> None:
    subject = Subject.open(run.path, n=30)
    result = measure.ood(subject, ["uniform"], ["log_px"]).result
    assert (result["n"], result["protocol"]["sets"]["uniform"]["n"]) == (30, 30)
    arrays = saved(run, "eval-ood-uniform-log_px-n30")
    assert [len(array) for array in arrays.values()] == [30, 30]


@pytest.mark.parametrize(("scores", "passes"), [(["log_px", "max_py", "distance"], 0), (["mass"], 2)])
def test_gradients_are_taken_for_the_mass_alone(scores: list[str], passes: int, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *words, **more: taken.append(1) or grad(*words, **more))
    measure.ood(subject, ["uniform"], scores)
    assert len(taken) == passes  # the own images and the others fit into one chunk each


def test_one_pass_serves_all(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(model: Any, images: torch.Tensor, *more: Any) -> Any:
        passes.append(len(images))
        return outputs(model, images, *more)

    monkeypatch.setattr("gmmcli.evaluate.subject.outputs", counted)
    measure.tested(subject, quiet=True, mass=True)
    for verb, more in VERBS:
        ask(subject, verb, **more)
    assert passes == [120]


def test_another_split_has_a_name_of_its_own(run: Run) -> None:
    result = measure.accuracy(Subject.open(run.path, split="validation")).result
    assert (result["split"], result["n"]) == ("validation", 60)
    assert run.result("eval accuracy validation") == result
    assert run.result("eval accuracy") is None
    assert len(saved(run, "eval-accuracy-validation")["labels"]) == 60


def test_other_images_are_saved_and_drawn_under_their_name(run: Run, tmp_path: Path) -> None:
    arrays = {f"{split}_{key}": array for split in ("train", "val", "test") for key, array in EASY.items()}
    np.savez(tmp_path / "my other.v2.npz", **arrays)  # type: ignore[arg-type]
    measured = measure.calibrate(Subject.open(run.path, data=f"npz:{tmp_path / 'my other.v2.npz'}"))
    assert run.result("eval calibrate my other.v2.npz test") == measured.result
    names = [f"eval-calibrate-my-other.v2.npz-test.{suffix}" for suffix in ("png", "svg")]
    assert [path.name for path in measured.pictures] == names
    assert sorted(path.name for path in (run.path / "results").iterdir()) == [
        names[0].replace("png", "json"),
        names[0].replace("png", "npz"),
    ]


EASY = {"images": np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8), "labels": np.arange(20) % 10}


@pytest.mark.parametrize(("verb", "more"), VERBS)
@pytest.mark.parametrize("out", [None, "elsewhere/picture.png"])
def test_the_picture_lies_in_the_run_or_where_it_is_asked_for(
    out: str | None, verb: str, more: dict[str, Any], subject: Subject, tmp_path: Path
) -> None:
    pictures = ask(subject, verb, out=tmp_path / out if out else None, **more).pictures
    stem = (tmp_path / out).with_suffix("") if out else subject.run.path / "figures" / NAMES[verb].replace(" ", "-")
    assert pictures == [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    assert all(path.is_file() for path in pictures)


def test_detection_from_data_at_a_long_path_is_drawn(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    png, svg = measure.ood(subject, ["uniform"], ["log_px"]).pictures
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        picture.load()
    assert f"{subject.dataset.title} test" in svg.read_text(encoding="utf-8")


def test_progress_goes_to_stderr_unless_quiet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    measure.accuracy(Subject.open(run.path))
    assert capsys.readouterr() == ("", "")
    measure.accuracy(Subject.open(run.path), quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "test 120/120" in err
