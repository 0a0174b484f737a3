import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from digits import ALMOST, saved
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix

from gmmcli.data.dataset import Split
from gmmcli.errors import DataError
from gmmcli.evaluate.classification import accuracy, calibrate
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs
from gmmcli.provenance import filed_path
from gmmcli.run import Run
from gmmcli.storage import file_stem

pytestmark = pytest.mark.usefixtures("undrawn")


def nll(logits: np.ndarray, labels: np.ndarray, scale: float) -> float:
    return -float(log_softmax(logits.astype(np.float64) / scale, axis=1)[np.arange(len(labels)), labels].mean())


def ece(logits: np.ndarray, labels: np.ndarray, scale: float) -> float:
    """Eq. 12 image by image."""
    probs = np.exp(log_softmax(logits.astype(np.float64) / scale, axis=1))
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probs, labels, strict=True):
        bins.setdefault(int(np.ceil(20 * row.max())), []).append((row.max(), row.argmax() == label))
    return sum(abs(sum(right for _, right in inside) - sum(sure for sure, _ in inside)) for inside in bins.values()) / len(labels)


def test_accuracy_follows_from_the_logits_beside_it(subject: Subject) -> None:
    values = accuracy(subject).result["values"]
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
    accuracy(subject)
    expected = outputs(subject.run.model(), subject.dataset.test.images).logits
    assert np.array_equal(saved(subject.run, "eval-accuracy")["logits"], expected.numpy())


def test_calibration_follows_from_the_logits_beside_it_at_every_scale(subject: Subject) -> None:
    values = calibrate(subject).result["values"]
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
    result = calibrate(subject).result
    images, labels = subject.dataset.validation.batch()
    logits = outputs(subject.model, images).logits.numpy()
    best = minimize_scalar(lambda t: nll(logits, labels.numpy(), np.exp(t)), bounds=(-14, 14), method="bounded", options={"xatol": 1e-8})
    assert result["values"]["temperature"] == pytest.approx(np.exp(best.x), rel=1e-4)
    assert (result["protocol"]["n_validation"], result["protocol"]["temperature_fitted"]) == (60, True)


def test_where_every_validation_image_is_right_gamma_stands_in_and_a_warning_says_so(subject: Subject) -> None:
    images = subject.dataset.validation.images
    perfect = Split(images, outputs(subject.model, images).logits.argmax(1))
    measured = calibrate(replace(subject, dataset=replace(subject.dataset, validation=perfect)))
    assert measured.result["values"]["temperature"] == subject.gamma2
    assert measured.result["protocol"]["temperature_fitted"] is False
    assert any("no temperature can be fitted" in warning for warning in measured.warnings)


def test_a_saturated_softmax_is_warned_of(subject: Subject) -> None:
    for gamma2, expected in ((1e6, False), (1e-9, True)):
        subject.model.gamma2 = gamma2
        warned = [warning for warning in calibrate(subject).warnings if "saturated" in warning]
        assert any("scale gamma" in warning for warning in warned) == expected


def test_another_split_has_a_name_of_its_own(run: Run) -> None:
    result = accuracy(Subject.open(run.path, split="validation")).result
    assert (result["split"], result["n"]) == ("validation", 60)
    assert run.result("eval accuracy validation") == result
    assert run.result("eval accuracy") is None
    assert len(saved(run, "eval-accuracy-validation")["labels"]) == 60


def test_other_images_are_saved_and_drawn_under_their_name(run: Run, tmp_path: Path) -> None:
    arrays = {f"{split}_{key}": array for split in ("train", "val", "test") for key, array in EASY.items()}
    np.savez(tmp_path / "my other.v2.npz", **arrays)  # type: ignore[arg-type]
    measured = calibrate(Subject.open(run.path, data=f"npz:{tmp_path / 'my other.v2.npz'}"))
    name = filed_path(str(tmp_path / "my other.v2.npz"))
    assert run.result(f"eval calibrate {name} test") == measured.result
    names = [f"{file_stem(f'eval calibrate {name} test')}.{suffix}" for suffix in ("png", "svg")]
    assert re.fullmatch(r"eval-calibrate-my-other\.v2\.npz-[0-9a-f]{6}-test\.png", names[0])
    assert [path.name for path in measured.pictures] == names
    assert sorted(path.name for path in (run.path / "results").iterdir()) == [
        names[0].replace("png", "json"),
        names[0].replace("png", "npz"),
    ]


def test_images_of_one_name_in_two_folders_and_of_names_that_differ_in_signs_have_results_of_their_own(run: Run, tmp_path: Path) -> None:
    arrays = {f"{split}_{key}": array for split in ("train", "val", "test") for key, array in EASY.items()}
    places = [tmp_path / name for name in ("a/my other.npz", "b/my other.npz", "a/my-other.npz")]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        np.savez(place, **arrays)  # type: ignore[arg-type]
        accuracy(Subject.open(run.path, data=f"npz:{place}"))
    assert len(run.results()) == len(places)


EASY = {"images": np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8), "labels": np.arange(20) % 10}


def test_other_images_are_measured_without_a_temperature_where_the_runs_own_data_is_gone(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: Run) -> None:
        raise DataError("no such folder", "")

    expected = accuracy(subject).result["values"]
    monkeypatch.setattr(Run, "dataset", gone)
    result = accuracy(replace(subject, foreign=True)).result
    assert result["protocol"]["temperature"] is None and "calibrated_nll" not in result["values"]
    assert (result["values"]["accuracy"], result["values"]["nll"]) == (expected["accuracy"], expected["nll"])
    with pytest.raises(DataError, match="no such folder"):
        calibrate(replace(subject, foreign=True))
