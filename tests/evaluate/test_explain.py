"""What stands behind a verdict: the nearest training images, energies, and a chain towards a class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from gmmcli.core.classifier import predict
from gmmcli.data.dataset import Split
from gmmcli.data.digits import Digits
from gmmcli.data.folder import Folder
from gmmcli.evaluate import explain as explaining
from gmmcli.evaluate.classify import Judgement
from gmmcli.evaluate.explain import NEAREST, draw, explain, files_of, nearest, towards
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.outputs import outputs
from gmmcli.types import Features, RawImages


@pytest.fixture
def judge(subject: Subject) -> Judgement:
    return Judgement(subject)


def one(judge: Judgement, known: bool) -> RawImages:
    """A test image that is known and of the class that it is taken for, or one of noise that is not known."""
    if not known:
        return torch.randint(0, 256, (1, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images, labels = judge.subject.images.batch()
    names = judge.subject.card.class_names
    right = [verdict.known and verdict.label == names[k] for verdict, k in zip(judge(images), labels.tolist(), strict=True)]
    return images[right.index(True)][None]


def test_the_nearest_are_those_of_scikit_learn_and_few_images_are_in_memory(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "CHUNK", 7)
    seen: list[int] = []

    def features(images: RawImages) -> Features:
        seen.append(len(images))
        return outputs(subject.model, images).features

    train, images = subject.dataset.train, subject.images.batch(slice(3))[0]
    queries = outputs(subject.model, images).features
    told: list[int] = []
    squares, positions = nearest(features, train, queries, 4, told.append)
    assert (max(seen), sum(seen), told[-1]) == (7, len(train), len(train))
    search = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(outputs(subject.model, train).features.double())
    distances, expected = search.kneighbors(queries.double())
    assert positions.tolist() == expected.tolist()
    np.testing.assert_allclose(squares, distances**2, rtol=1e-4)


def test_of_equally_near_ones_the_first_come_first() -> None:
    train = Split(torch.tensor([3, 0, 3, 0, 0]).view(5, 1, 1, 1).byte(), torch.zeros(5, dtype=torch.int64))
    squares, positions = nearest(lambda images: images.flatten(1).float(), train, torch.zeros(1, 1), 4)
    assert positions.tolist() == [[1, 3, 4, 0]]
    assert squares.tolist() == [[0.0, 0.0, 0.0, 9.0]]


def test_what_is_known_is_not_changed_and_a_training_image_is_nearest_to_itself(judge: Judgement) -> None:
    image = judge.subject.dataset.train.batch(torch.tensor([5]))[0]
    verdicts = judge(image)
    (found,) = explain(judge, image, verdicts)
    assert verdicts[0].known
    assert (found.changed, found.explanation.counterfactual) == (None, None)
    first, *others = found.explanation.nearest
    assert (first.index, first.file) == (5, None)
    assert first.squared_distance < 1e-9  # the rounding of another batch
    assert len(others) == NEAREST - 1
    assert torch.equal(found.nearest[0], image[0])
    assert list(found.explanation.lines()) == ["nearest training images", "best classes"]


def test_energies_are_the_models(judge: Judgement) -> None:
    image = one(judge, known=True)
    logits = predict(judge.subject.model, image)[0]
    (found,) = explain(judge, image, judge(image))
    best = found.explanation.classes
    assert [energy.label for energy in best] == [judge.subject.card.class_names[k] for k in logits.topk(2).indices]
    assert [energy.energy for energy in best] == pytest.approx((-logits.topk(2).values).tolist(), rel=1e-5)
    assert [energy.squared_distance for energy in best] == pytest.approx((-2 * logits.topk(2).values).tolist(), rel=1e-5)


def test_the_unknown_becomes_known_and_the_wrong_becomes_right(judge: Judgement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "STEP", 0.03)
    names = judge.subject.card.class_names
    for known, label in ((False, None), (True, "other"), (False, "other")):
        image = one(judge, known)
        verdicts = judge(image)
        assert verdicts[0].known == known
        other = names[(names.index(verdicts[0].label) + 1) % len(names)]
        (found,) = explain(judge, image, verdicts, other if label else None)
        counterfactual = found.explanation.counterfactual
        assert counterfactual and found.changed is not None
        assert counterfactual.towards == (other if label else verdicts[0].label)
        (after,) = judge(found.changed)
        assert counterfactual.reached
        assert (after.known, after.label) == (True, counterfactual.towards)
        assert counterfactual.log_density == pytest.approx(after.log_density, rel=1e-4)
        difference = found.changed.double() - image.double()
        assert (counterfactual.pixels, counterfactual.of) == (int((difference != 0).sum()), 64)
        assert counterfactual.l2 == pytest.approx(float(difference.norm()) / 255)


def test_a_chain_starts_at_the_image_and_goes_down_by_steps_of_one_length(judge: Judgement, monkeypatch: pytest.MonkeyPatch) -> None:
    image, label = one(judge, known=False).clamp(64, 192), "3"  # far from the ends of the range
    monkeypatch.setattr(explaining, "STEPS", 0)
    start, counterfactual = towards(judge, image, label)
    assert torch.equal(start, image)
    assert (counterfactual.steps, counterfactual.pixels, counterfactual.l2, counterfactual.reached) == (0, 0, 0.0, False)
    energies = [float(-predict(judge.subject.model, image)[0, 3])]
    for steps in (1, 2, 3):
        monkeypatch.setattr(explaining, "STEPS", steps)
        monkeypatch.setattr(explaining, "STEP", 0.05)
        changed, counterfactual = towards(judge, image, label)
        assert counterfactual.steps == steps
        energies.append(float(-predict(judge.subject.model, changed)[0, 3]))
        if steps == 1:
            assert counterfactual.l2 == pytest.approx(0.05 * 8 / 2, rel=0.02)  # 64 pixels; [0, 1] is half of the model range
        assert counterfactual.l2 <= steps * 0.05 * 8 / 2 * 1.02
    assert energies == sorted(energies, reverse=True)
    assert "no known 3 yet" in str(counterfactual)


def test_the_picture_has_a_row_for_each(judge: Judgement, tmp_path: Path) -> None:
    rows = []
    for known in (True, False):
        image = one(judge, known)
        verdicts = judge(image)
        (found,) = explain(judge, image, verdicts)
        draw(image, verdicts[0], found, tmp_path / "why.png")
        with Image.open(tmp_path / "why.png") as picture:
            rows.append(picture.height // 66)
    assert rows == [1 + NEAREST, 3 + NEAREST]


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[Folder]:
    """Two classes of three pictures, one of each class alike."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) if i else np.zeros((8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i}.png")
    yield Folder(path=str(tmp_path / "photos"), size=8)


def test_files_are_found_by_class_and_content(photos: Folder) -> None:
    images, _ = photos.everything()[0].batch()
    labels = ["cat"] * 3 + ["dog"] * 3
    found = files_of(photos, images.flip(0), labels[::-1])
    assert [str(file)[len(photos.path) :] for file in found[::-1]] == [f"/{label}/{i}.png" for label in ("cat", "dog") for i in range(3)]
    assert files_of(photos, 255 - images[1:2], ["cat"]) == [None]


def test_a_source_without_files_has_no_file_names(subject: Subject) -> None:
    images = subject.dataset.train.batch(slice(2))[0]
    assert files_of(Digits(), images, ["0", "1"]) == [None, None]
