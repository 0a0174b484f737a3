from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from digits import ALMOST, saved
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from extension import install_example
from gmmcli.data import remote
from gmmcli.data.downloaded import MNIST
from gmmcli.errors import DataError, RecipeError
from gmmcli.evaluate import detection
from gmmcli.evaluate import subject as subject_module
from gmmcli.evaluate.detection import ood
from gmmcli.evaluate.subject import Subject
from gmmcli.evaluate.tables import result_table
from gmmcli.layout import lines
from gmmcli.metrics.outputs import outputs
from gmmcli.metrics.scores import SCORES, score_names
from gmmcli.registry import installed
from gmmcli.report.catalogue import estimates
from gmmcli.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")


def test_detection_follows_from_the_scores_beside_it(subject: Subject) -> None:
    values = ood(subject, ["interp", "noise"]).result["values"]
    arrays = saved(subject.run, "eval-ood-interp-noise")
    assert list(values) == ["interp", "uniform", "gaussian"]
    assert set(arrays) == {f"{name} {score}" for name in ("in", *values) for score in score_names(None)}
    for name, scores in values.items():
        assert list(scores) == score_names(None)
        for score, row in scores.items():
            inside, outside = arrays[f"in {score}"], arrays[f"{name} {score}"]
            truth, both = np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate([inside, outside])
            assert row["auroc"] == pytest.approx(roc_auc_score(truth, both), **ALMOST)
            assert row["aupr_in"] == pytest.approx(average_precision_score(truth, both), **ALMOST)
            assert row["aupr_out"] == pytest.approx(average_precision_score(1 - truth, -both), **ALMOST)


def test_the_scores_are_those_of_the_own_images_in_their_order(subject: Subject) -> None:
    ood(subject, ["uniform"])
    arrays = saved(subject.run, "eval-ood-uniform")
    own = outputs(subject.model, subject.dataset.test.images, subject.gamma2)
    assert own.mass is not None
    expected = {
        "log_px": np.logaddexp.reduce(own.logits.double().numpy() / subject.gamma2, axis=1),
        "mass": -own.mass.double().numpy(),
        "max_logit": own.logits.double().numpy().max(1),
    }
    for score, values in expected.items():
        np.testing.assert_allclose(arrays[f"in {score}"], values, rtol=1e-9)


def test_a_set_twice_is_measured_once_and_in_the_order_asked_for(subject: Subject) -> None:
    result = ood(subject, ["gaussian", "noise", "interp", "gaussian"], ["max_logit"]).result
    assert list(result["values"]) == list(result["protocol"]["sets"]) == ["gaussian", "uniform", "interp"]
    assert result["protocol"]["sets"]["interp"]["n"] == 60  # half of so few
    assert result["protocol"]["in_distribution"] == f"{subject.dataset.title} test"


def test_the_default_sets_are_those_of_the_data_and_its_kind(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(detection, "default_sets", lambda *about: asked.append(about) or ["uniform"])
    assert list(ood(subject, scores=["log_px"]).result["values"]) == ["uniform"]
    assert asked == [(subject.dataset, "npz")]


@pytest.fixture
def damaged_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Default sets of which all but one have files that cannot be read."""
    names = ["mnist", "uniform", "npz:junk.npz", "folder:empty"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    for file in MNIST.published.files:
        (tmp_path / "data" / file.place).write_bytes(b"junk")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(detection, "default_sets", lambda *about: names)
    return names


def test_default_sets_that_are_damaged_are_reported_and_the_rest_is_measured(subject: Subject, damaged_defaults: list[str]) -> None:
    result = ood(subject, scores=["log_px"]).result
    assert list(result["values"]) == damaged_defaults
    assert list(result["values"]["uniform"]) == ["log_px"]
    for name in ("mnist", "npz:junk.npz", "folder:empty"):
        missing = result["values"][name]
        assert set(missing) == {"missing", "hint"}
        assert missing == result["protocol"]["sets"][name]
        assert missing["missing"] and missing["hint"]
    assert "is damaged: it has 4 bytes" in result["values"]["mnist"]["missing"]
    assert set(saved(subject.run, "eval-ood-log_px")) == {"in log_px", "uniform log_px"}


@pytest.mark.parametrize("name", ["celeba", "mnist", "npz:junk.npz", "npz:gone.npz", "folder:gone"])
def test_a_set_asked_for_by_name_must_be_there(name: str, subject: Subject, damaged_defaults: list[str]) -> None:
    with pytest.raises(DataError) as error:
        ood(subject, ["uniform", name])
    assert error.value.exit_code == 3
    assert name.partition(":")[2] in error.value.message and error.value.hint
    assert subject.run.results() == {}


def test_what_the_defaults_lack_is_a_warning(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "urlopen", lambda *words, **more: pytest.fail("the network was used"))
    measured = ood(subject, scores=["log_px"])
    assert list(measured.result["values"]) == ["interp", "uniform", "gaussian", "digits"]
    assert measured.warnings == ["not compared with mnist (not on disk): `gmmc data download mnist` (12 MB)"]
    assert ood(subject, ["uniform"], ["log_px"]).warnings == []


def test_with_every_default_missing_there_is_a_result_and_no_picture(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "default_sets", lambda *about: ["npz:gone.npz"])
    measured = ood(subject)
    assert measured.pictures == []
    assert subject.run.result("eval ood") == measured.result
    assert not (subject.run.path / "figures").exists()


def test_an_unknown_set_is_an_error_and_nothing_is_saved(subject: Subject) -> None:
    with pytest.raises(RecipeError, match="no set of images 'svnh'"):
        ood(subject, ["uniform", "svnh"], ["log_px"])
    assert subject.run.results() == {}


def test_other_sets_have_a_result_of_their_own(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "default_sets", lambda *about: ["gaussian"])
    usual, other = (ood(subject, sets).result for sets in (None, ["uniform"]))
    assert (subject.run.result("eval ood"), subject.run.result("eval ood uniform")) == (usual, other)


def test_n_holds_for_the_others_too(run: Run) -> None:
    subject = Subject.open(run.path, n=30)
    result = ood(subject, ["uniform"], ["log_px"]).result
    assert (result["n"], result["protocol"]["sets"]["uniform"]["n"]) == (30, 30)
    arrays = saved(run, "eval-ood-uniform-log_px-n30")
    assert [len(array) for array in arrays.values()] == [30, 30]


@pytest.mark.parametrize(("scores", "passes"), [(["log_px", "max_py", "max_logit"], 0), (["mass"], 2)])
def test_gradients_are_taken_for_the_mass_alone(scores: list[str], passes: int, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *words, **more: taken.append(1) or grad(*words, **more))
    ood(subject, ["uniform"], scores)
    assert len(taken) == passes  # the own images and the others fit into one chunk each


def test_detection_from_data_at_a_long_path_is_drawn(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    png, svg = ood(subject, ["uniform"], ["log_px"]).pictures
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        picture.load()
    assert f"{subject.dataset.title} test" in svg.read_text(encoding="utf-8")


def test_fitted_scores_see_the_training_images_in_one_pass(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    training = outputs(subject.model, subject.dataset.train.images)
    passes = []
    monkeypatch.setattr(subject_module, "outputs", lambda *words, **more: passes.append(len(words[1])) or outputs(*words, **more))
    result = ood(subject, ["uniform"], ["knn", "mahalanobis", "log_px"]).result
    assert passes == [200, 120]
    assert result["protocol"]["fitted"] == {"knn": {"n_training": 200, "k": 50}, "mahalanobis": {"n_training": 200}}
    score = SCORES["knn"].fitted(training, subject.dataset.train.labels, subject.model.head)
    expected = score(outputs(subject.model, subject.dataset.test.images), subject.gamma2)
    np.testing.assert_allclose(saved(subject.run, "eval-ood-uniform-knn-mahalanobis-log_px")["in knn"], expected, rtol=1e-6)


def test_training_images_are_drawn_where_there_are_too_many(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_module, "TRAINING_IMAGES", 70)
    facts = ood(subject, ["uniform"], ["knn"]).result["protocol"]["fitted"]["knn"]
    assert facts == {"n_training": 70, "k": 50}


def test_all_scores_are_all_there_are(subject: Subject) -> None:
    values = ood(subject, ["uniform"], ["all"]).result["values"]
    assert list(values["uniform"]) == list(SCORES)
    assert subject.run.result("eval ood uniform all") is not None


@pytest.fixture
def norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The score of docs/extending.md, installed."""
    install_example("A score", tmp_path, monkeypatch)
    yield
    monkeypatch.undo()
    installed.cache_clear()


def test_a_score_of_an_installed_package_is_measured_shown_and_reported(subject: Subject, norms: None) -> None:
    result = ood(subject, ["uniform"], ["feature_norm"]).result
    inside = outputs(subject.model, subject.dataset.test.images).features.double().norm(dim=1)
    outside = saved(subject.run, "eval-ood-uniform-feature_norm")["uniform feature_norm"]
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    auroc = roc_auc_score(truth, np.concatenate([inside.numpy(), outside]))
    assert result["values"]["uniform"]["feature_norm"]["auroc"] == pytest.approx(auroc, **ALMOST)
    assert f"||phi|| {auroc:.3f} [" in " ".join(" ".join(lines(result_table(result), 80)).split())
    assert [metric.label for metric, _ in estimates(result)] == ["||phi|| against uniform"]
    assert "feature_norm" in score_names(None)
