import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits import KEYS
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.svm import SVC
from torch import Tensor

from gmmcli.core.buffer import decode
from gmmcli.data.dataset import Split, chunks, subset
from gmmcli.errors import DataError, RecipeError
from gmmcli.evaluate.generation import Generation, generate
from gmmcli.evaluate.measured import Measured
from gmmcli.evaluate.moments import write_moments
from gmmcli.evaluate.samples import Draw, spread
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.features.spaces import Space, pixel_space, run_space
from gmmcli.metrics.frechet import Moments
from gmmcli.metrics.judge import ModelJudge, PixelJudge
from gmmcli.metrics.outputs import outputs
from gmmcli.metrics.scores import log_odds
from gmmcli.run import Run
from gmmcli.types import to_bytes


def ask(subject: Subject, space: Space | None = None, draw: Draw | None = None, out: Path | None = None, **more: Any) -> Measured:
    judge = PixelJudge(subject.dataset.train, subject.seed)
    return generate(subject, Generation(space or pixel_space(), judge, draw or Draw("buffer"), **more), out=out)


def saved(run: Run) -> dict[str, np.ndarray]:
    latest = max((run.path / "results").glob("eval-generate*.npz"), key=lambda path: path.stat().st_mtime_ns)
    with np.load(latest, allow_pickle=False) as archive:
        return dict(archive)


def flat(images: Tensor | np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as float64, one row an image."""
    rows = np.asarray(images).reshape(len(images), -1).astype(np.float64)
    return rows * 2 / 255 - 1


def everything(subject: Subject) -> Tensor:
    return torch.cat([subject.dataset.train.images, subject.dataset.validation.images])


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    root = np.sqrt(np.linalg.eigvals(np.cov(one.T) @ np.cov(other.T)).real.clip(0))
    return float(np.square(one.mean(0) - other.mean(0)).sum() + np.trace(np.cov(one.T) + np.cov(other.T)) - 2 * root.sum())


def write(path: Path, images: Tensor, labels: Tensor) -> Path:
    """Samples as `gmmc sample --format npz` writes them."""
    np.savez(path, images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return path


def test_the_replay_buffer_in_pixels_from_end_to_end(subject: Subject) -> None:
    measured = ask(subject)
    result, run = measured.result, subject.run
    assert list(result) == KEYS
    assert (result["command"], result["n"], result["step"]) == ("eval generate", 100, 20)
    assert json.loads((run.path / "results" / "eval-generate-pixels.json").read_text()) == result == run.result("eval generate pixels")
    assert set(result["values"]) == {
        *("feature_fid", "feature_kid", "feature_kid_std", "precision", "recall", "density", "coverage"),
        *("feature_fid_ci95", "feature_kid_ci95", "precision_ci95", "recall_ci95", "density_ci95", "coverage_ci95", "starts", "real"),
        *("label_agreement", "label_agreement_ci95", "per_class", "memorisation"),
        *("judge", "judge_accuracy", "judge_accuracy_ci95", "judge_n"),
    }
    figures = {"sample_to_train", "test_to_train", "copies"}
    assert set(result["values"]["memorisation"]) == figures | {f"{name}_ci95" for name in figures}
    assert result["protocol"]["space"] == "pixels"
    assert result["protocol"]["samples"] == {"from": "buffer", "seed": 1}
    assert result["protocol"]["reference"] == f"{subject.dataset.title} train"
    assert (result["protocol"]["n_reference"], result["protocol"]["filter"]) == (260, "none")
    assert measured.warnings == []


def test_some_test_images_of_each_class_are_kept_beside_the_samples(subject: Subject) -> None:
    ask(subject)
    arrays, test = saved(subject.run), subject.dataset.test
    for k in range(10):
        of_class = [image.tobytes() for image in test.images[test.labels == k].numpy()]
        kept = [image.tobytes() for image in arrays["real"][arrays["real_labels"] == k]]
        assert len(kept) == min(8, len(of_class))
        assert {*kept} <= {*of_class}


def test_samples_are_the_buffers_images_each_of_its_class(subject: Subject) -> None:
    ask(subject)
    arrays = saved(subject.run)
    buffer = to_bytes(decode(subject.run.buffer().images)).numpy()
    assert np.array_equal(np.bincount(arrays["labels"]), [10] * 10)
    for k in range(10):
        drawn = {image.tobytes() for image in arrays["samples"][arrays["labels"] == k]}
        assert drawn == {image.tobytes() for image in buffer[k]}


def test_distance_agreement_and_memorisation_follow_from_the_samples_beside_them(subject: Subject) -> None:
    values = ask(subject).result["values"]
    arrays = saved(subject.run)
    samples, train, test = flat(arrays["samples"]), flat(subject.dataset.train.images), flat(subject.dataset.test.images)
    assert values["feature_fid"] == pytest.approx(frechet(samples, flat(everything(subject))), rel=1e-3)
    svc = SVC(C=10).fit(train, subject.dataset.train.labels)
    assert values["label_agreement"] == pytest.approx((svc.predict(samples) == arrays["labels"]).mean())
    assert values["judge_accuracy"] == pytest.approx(svc.score(test, subject.dataset.test.labels))
    assert values["judge_n"] == 120
    from_samples, from_test = cdist(samples, train).min(1), cdist(test, train).min(1)
    assert values["memorisation"]["sample_to_train"] == pytest.approx(np.median(from_samples), rel=1e-4)
    assert values["memorisation"]["test_to_train"] == pytest.approx(np.median(from_test), rel=1e-4)
    assert values["memorisation"]["copies"] == (from_samples < np.quantile(from_test, 0.01)).mean()


def test_the_same_question_has_the_same_answer_and_another_seed_draws_others(run: Run) -> None:
    first, again = (ask(Subject.open(run.path), n=30).result for _ in range(2))
    assert first == again
    assert ask(Subject.open(run.path), n=30, draw=Draw("buffer", seed=2)).result["values"] != first["values"]


@pytest.mark.parametrize("n", [2, 25, 100])
def test_n_is_the_number_of_samples_in_all(n: int, subject: Subject) -> None:
    result = ask(subject, n=n).result
    assert result["n"] == n == len(saved(subject.run)["labels"])
    assert max(np.bincount(saved(subject.run)["labels"])) <= -(-n // 10)


def test_more_than_the_buffer_holds_is_an_error(subject: Subject) -> None:
    with pytest.raises(RecipeError, match=r"^the buffer holds 10 images of a class, not 11$"):
        ask(subject, n=101)


def test_fresh_chains_are_measured_as_they_were_drawn(subject: Subject) -> None:
    result = ask(subject, n=20, draw=Draw("noise", steps=2, step_size=0.5, seed=4)).result
    assert result["n"] == 20
    assert {key: result["protocol"]["samples"][key] for key in ("from", "steps", "step_size", "seed")} == {
        "from": "noise",
        "steps": 2,
        "step_size": 0.5,
        "seed": 4,
    }


def test_training_images_passed_off_as_samples_are_found_out(subject: Subject, tmp_path: Path) -> None:
    images, labels = subject.dataset.train.batch()
    result = ask(subject, samples=write(tmp_path / "x.npz", images, labels)).result
    assert (result["n"], result["protocol"]["samples"]) == (200, {"from": str(tmp_path / "x.npz")})
    found = result["values"]["memorisation"]
    assert (found["sample_to_train"], found["sample_to_train_ci95"], found["copies"]) == (0, [0, 0], 1.0)
    assert 0.9 < found["copies_ci95"][0] < found["copies_ci95"][1] == 1
    assert result["values"]["label_agreement"] > 0.99
    assert np.array_equal(saved(subject.run)["samples"], images.numpy())
    assert result["values"]["feature_fid"] < ask(subject).result["values"]["feature_fid"] / 10


def test_samples_of_the_reference_itself_are_at_no_distance(subject: Subject, tmp_path: Path) -> None:
    images, labels = subject.dataset.test.batch()
    values = ask(subject, samples=write(tmp_path / "x.npz", images, labels), reference="test").result["values"]
    assert values["feature_fid"] == pytest.approx(0, abs=1e-3)
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)


@pytest.mark.parametrize(("reference", "n"), [("train", 260), ("test", 120), ("train+test", 380)])
def test_the_reference_is_what_was_asked_for(reference: Any, n: int, subject: Subject) -> None:
    result = ask(subject, reference=reference).result
    assert (result["protocol"]["n_reference"], result["protocol"]["reference"]) == (n, f"{subject.dataset.title} {reference}")
    parts = {"train": everything(subject), "test": subject.dataset.test.images}
    real = np.concatenate([flat(parts[name]) for name in reference.split("+")])
    assert result["values"]["feature_fid"] == pytest.approx(frechet(flat(saved(subject.run)["samples"]), real), rel=1e-3)


def test_given_statistics_take_the_references_place_in_the_frechet_distance_alone(subject: Subject, tmp_path: Path) -> None:
    test = torch.from_numpy(flat(subject.dataset.test.images))
    write_moments(Moments.of(test), tmp_path / "stats.npz")
    own, given = ask(subject).result, ask(subject, stats=tmp_path / "stats.npz").result
    assert given["protocol"]["reference"] == "stats.npz"
    assert given["values"]["feature_fid"] == pytest.approx(frechet(flat(saved(subject.run)["samples"]), test.numpy()), rel=1e-3)
    assert given["values"]["feature_fid"] != own["values"]["feature_fid"]
    for part in (None, "starts", "real"):
        ours, theirs = (result["values"][part] if part else result["values"] for result in (own, given))
        assert ours.keys() == theirs.keys()
        changed = {name for name in ours if ours[name] != theirs[name]} - {"starts", "real"}
        assert changed == {"feature_fid", "feature_fid_ci95"}


def test_statistics_written_are_those_of_the_reference_and_read_back(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "new" / "stats.npz"
    own = ask(subject, save_stats=path).result["values"]
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_allclose(archive["mu"], flat(everything(subject)).mean(0), atol=1e-6)
        np.testing.assert_allclose(archive["sigma"], np.cov(flat(everything(subject)).T), atol=1e-6)
    assert ask(subject, stats=path).result["values"]["feature_fid"] == pytest.approx(own["feature_fid"], rel=1e-9)


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_statistics_that_are_none(content: bytes, subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "stats.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"stats\.npz cannot be read as pytorch-fid statistics"):
        ask(subject, stats=tmp_path / "stats.npz")


def test_only_the_most_confident_are_kept_and_that_is_said_three_times(subject: Subject) -> None:
    ask(subject)
    everyone = saved(subject.run)
    measured = ask(subject, top_share=0.5)
    arrays = saved(subject.run)
    logits = outputs(subject.model, torch.from_numpy(everyone["samples"])).logits
    predicted, sure = logits.argmax(1).numpy(), log_odds(logits).numpy()
    kept = [i for i in range(100) if (sure[predicted == predicted[i]] > sure[i]).sum() < np.ceil((predicted == predicted[i]).sum() / 2)]
    assert np.array_equal(arrays["samples"], everyone["samples"][kept])
    assert np.array_equal(arrays["labels"], everyone["labels"][kept])
    assert measured.result["n"] == len(kept) < 60
    assert measured.result["protocol"]["filter"] == "the most confident 50% of each predicted class"
    few, filtered = measured.warnings
    assert "samples are few" in few
    assert "most confident 50%" in filtered


@pytest.mark.parametrize("more", [{"n": 1}, {"top_share": 0.0}])
def test_too_few_samples_to_measure(more: dict[str, Any], subject: Subject) -> None:
    with pytest.raises(RecipeError, match=r"cannot measure \d sample") as error:
        ask(subject, **more)
    assert error.value.exit_code == 2
    assert subject.run.results() == {}


def test_in_inceptions_features_distances_have_their_names_and_few_samples_are_warned_of(subject: Subject) -> None:
    space = Space(
        "inception",
        "a stand-in",
        lambda images: torch.from_numpy(flat(torch.cat(list(chunks(images, 50))))),
        lambda features: features[:, :10].softmax(1),
    )
    measured = ask(subject, space, n=50)
    assert {"fid", "kid", "kid_std", "is_mean", "is_std"} < set(measured.result["values"])
    assert not any(name.startswith("feature_") for name in measured.result["values"])
    (warning,) = measured.warnings
    assert warning.startswith("50 samples are few")
    assert measured.result["protocol"]["is"]
    assert len(ask(subject, space, top_share=0.5).warnings) == 2


def test_the_features_of_a_run_may_be_the_space_and_its_model_the_judge(subject: Subject) -> None:
    judge = ModelJudge(subject.model, "itself", "me")
    result = generate(subject, Generation(run_space("x", subject.model), judge, Draw("buffer"))).result
    samples = torch.from_numpy(saved(subject.run)["samples"])
    features = [outputs(subject.model, images).features.double().numpy() for images in (samples, everything(subject))]
    assert result["values"]["feature_fid"] == pytest.approx(frechet(*features), rel=1e-2)
    right = outputs(subject.model, samples).logits.argmax(1).numpy() == saved(subject.run)["labels"]
    assert result["values"]["label_agreement"] == right.mean()
    assert (result["values"]["judge"], result["protocol"]["space"]) == ("itself", "run:x")


BROKEN: dict[str, dict[str, Any]] = {
    "no labels": {"labels": None},
    "no images": {"images": None},
    "another size": {"images": np.zeros((4, 16, 16, 1), np.uint8)},
    "colour": {"images": np.zeros((4, 8, 8, 3), np.uint8)},
    "channels first": {"images": np.zeros((4, 1, 8, 8), np.uint8)},
    "no channel axis": {"images": np.zeros((4, 8, 8), np.uint8)},
    "numbers between 0 and 1": {"images": np.zeros((4, 8, 8, 1), np.float32)},
    "too few labels": {"labels": np.zeros(3, int)},
    "labels in a column": {"labels": np.zeros((4, 1), int)},
    "one label for all": {"labels": np.array(0)},
    "labels in words": {"labels": np.array(["cat"] * 4)},
    "objects": {"labels": np.array([None] * 4)},
    "a label of no class": {"labels": np.array([0, 1, 2, 10])},
    "labels of no class": {"labels": np.full(4, 10)},
    "a label below 0": {"labels": np.array([0, 1, 2, -1])},
}


@pytest.mark.parametrize("arrays", BROKEN.values(), ids=BROKEN.keys())
def test_samples_of_another_kind_are_refused(arrays: dict[str, Any], subject: Subject, tmp_path: Path) -> None:
    good = {"images": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.arange(4)}
    np.savez(tmp_path / "x.npz", **{key: array for key, array in (good | arrays).items() if array is not None})
    with pytest.raises(DataError, match=r"x\.npz") as error:
        ask(subject, samples=tmp_path / "x.npz")
    assert error.value.hint
    assert error.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_of_samples(content: bytes, subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz cannot be read as samples"):
        ask(subject, samples=tmp_path / "x.npz")


def test_samples_that_are_not_there(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz cannot be read as samples"):
        ask(subject, samples=tmp_path / "gone.npz")


@pytest.mark.parametrize("out", [None, "elsewhere/near.png"])
def test_one_sample_a_class_is_shown_before_its_nearest_training_images(out: str | None, subject: Subject, tmp_path: Path) -> None:
    (path,) = ask(subject, out=tmp_path / out if out else None).pictures
    assert path == (tmp_path / out if out else subject.run.path / "figures" / "eval-generate-pixels.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()


def test_another_checkpoint_has_a_result_and_a_picture_of_its_own(run: Run) -> None:
    last, best = ask(Subject.open(run.path)), ask(Subject.open(run.path, best=True))
    assert run.result("eval generate pixels") == last.result
    assert run.result("eval generate pixels best") == best.result
    assert last.pictures != best.pictures


def test_the_neighbours_shown_are_the_nearest(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, Tensor]] = []
    monkeypatch.setattr("gmmcli.evaluate.generation.save_grid", lambda rows, *_, **__: shown.extend(rows))
    ask(subject, n=20)
    train = flat(subject.dataset.train.images)
    assert [name for name, _ in shown] == list("0123456789")
    for _, row in shown:
        sample, near = row[:1].double().numpy().reshape(1, -1), row[1:].double().numpy().reshape(5, -1)
        np.testing.assert_allclose(cdist(sample, near)[0], np.sort(cdist(sample, train)[0])[:5], rtol=1e-5)


def test_the_judge_is_judged_on_images_drawn_at_random_not_on_the_first(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    class Listening:
        about = "one who listens"
        name = ""

        def classes(self, images: Tensor | Split) -> Tensor:
            asked.append(torch.cat(list(chunks(images, 50))))
            return torch.zeros(len(images), dtype=torch.long)

    monkeypatch.setattr("gmmcli.evaluate.generation.MOST_JUDGED", 30)
    generate(subject, Generation(pixel_space(), Listening(), Draw("buffer"), n=20))
    test = subject.dataset.test.images
    samples, judged, starts = asked
    assert (len(samples), len(judged), len(starts)) == (20, 30, 20)
    assert not torch.equal(judged, test[:30])
    assert {image.numpy().tobytes() for image in judged} <= {image.numpy().tobytes() for image in test}


def test_other_questions_have_results_of_their_own(subject: Subject) -> None:
    plain, few = ask(subject), ask(subject, n=20)
    fresh = ask(subject, n=20, draw=Draw("noise", steps=1), reference="test", top_share=0.5)
    assert subject.run.result("eval generate pixels") == plain.result
    assert subject.run.result("eval generate pixels n20") == few.result
    assert subject.run.result("eval generate pixels noise n20 test top 0.5") == fresh.result
    assert [one.result["split"] for one in (plain, few, fresh)] == ["train", "train", "test"]
    assert len({one.pictures[0] for one in (plain, few, fresh)}) == 3


@pytest.mark.parametrize(("n", "warned"), [(63, True), (64, False)])
def test_fewer_samples_than_features_are_warned_of_in_every_space(n: int, warned: bool, subject: Subject) -> None:
    assert any("the 64 features of this space" in warning for warning in ask(subject, n=n).warnings) == warned


BESIDE = {"n", "feature_fid", "precision", "recall", "density", "coverage", "label_agreement"}


def test_beside_the_samples_stand_where_chains_start_and_test_images(subject: Subject) -> None:
    result = ask(subject, n=50).result
    values = result["values"]
    for part in ("starts", "real"):
        assert {name for name in values[part] if not name.endswith("_ci95")} == BESIDE
        assert {f"{name}_ci95" for name in BESIDE - {"n"}} <= values[part].keys()
        assert values[part]["n"] == 50
        assert result["protocol"][part]
    assert values["real"]["label_agreement"] == values["judge_accuracy"]
    assert values["real"]["feature_fid"] < values["feature_fid"]  # the buffer of a training of seconds
    assert values["real"]["precision"] > 0.5 > values["starts"]["precision"]


def test_starts_are_the_images_from_which_fresh_chains_of_the_same_seed_set_out(subject: Subject) -> None:
    result = ask(subject, n=20, draw=Draw("noise", steps=1, seed=4)).result
    begun = Draw("noise", steps=0, seed=4)(subject.run, subject.model, spread(range(10), 20))
    samples, reference = flat(to_bytes(begun.images)), flat(everything(subject))
    assert result["values"]["starts"]["feature_fid"] == pytest.approx(frechet(samples, reference), rel=1e-3)
    svc = SVC(C=10).fit(flat(subject.dataset.train.images), subject.dataset.train.labels)
    assert result["values"]["starts"]["label_agreement"] == pytest.approx((svc.predict(samples) == begun.labels.numpy()).mean())


def test_samples_from_a_file_have_no_starts(subject: Subject, tmp_path: Path) -> None:
    result = ask(subject, samples=write(tmp_path / "x.npz", *subject.dataset.train.batch())).result
    assert "starts" not in result["values"]
    assert result["protocol"]["starts"] is None
    assert result["values"]["real"]["n"] == 120  # all test images, fewer than samples


@pytest.mark.parametrize(("reference", "n_real", "n_others"), [("train", 100, 260), ("test", 60, 60), ("train+test", 100, 280)])
def test_real_images_are_compared_with_others_than_themselves(reference: Any, n_real: int, n_others: int, subject: Subject) -> None:
    result = ask(subject, reference=reference).result
    assert result["values"]["real"]["n"] == n_real
    assert f"{n_real} random {subject.dataset.title} test images, against {n_others} others" in result["protocol"]["real"]
    test = subject.dataset.test.images
    taken = subset(120, n_real, 1)
    left = test[[i for i in range(120) if i not in taken.tolist()]]
    others = {"train": everything(subject), "test": left, "train+test": torch.cat([everything(subject), left])}[reference]
    assert result["values"]["real"]["feature_fid"] == pytest.approx(frechet(flat(test[taken]), flat(others)), rel=1e-3)
