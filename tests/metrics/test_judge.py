from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import Tensor

from gmmcli.data.dataset import Dataset, Split, chunks
from gmmcli.data.digits import Digits
from gmmcli.metrics.intervals import wilson_interval
from gmmcli.metrics.judge import ModelJudge, PixelJudge, agreement_values, pixels
from gmmcli.recipe import Recipe
from gmmcli.types import to_model

NAMES = ("cat", "dog", "fox")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits().load()


@pytest.fixture(scope="module")
def pixel_judge(digits: Dataset) -> PixelJudge:
    return PixelJudge(digits.train, seed=1)


@dataclass(frozen=True)
class Reader:
    """Reads the class off the first pixel."""

    about: str = "a reader"
    name: str = ""

    def classes(self, images: Tensor | Split) -> Tensor:
        return torch.cat([part[:, 0, 0, 0].long() for part in chunks(images, 2)])


def written(*classes: int) -> Tensor:
    """Images with their class in the first pixel."""
    images = torch.zeros(len(classes), 1, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(classes, dtype=torch.uint8)
    return images


def test_pixels_are_rows_in_the_model_range(digits: Dataset) -> None:
    rows = pixels(digits.test.images)
    assert rows.shape == (360, 64)
    assert (rows.min(), rows.max()) == (-1, 1)
    assert np.array_equal(rows[7].reshape(8, 8), to_model(digits.test.images[7, 0]))


def test_the_pixel_judge_recognises_digits(pixel_judge: PixelJudge, digits: Dataset) -> None:
    right = pixel_judge.classes(digits.test.images) == digits.test.labels
    assert right.double().mean() > 0.97  # where SVCs with this kernel lie on these digits


def test_the_pixel_judge_is_an_svc_on_all_training_images_and_no_others(pixel_judge: PixelJudge, digits: Dataset) -> None:
    rows = [split.images.flatten(1).numpy() / 16 for split in (digits.train, digits.test)]  # its kernel does not mind the scale
    expected = SVC(C=10).fit(rows[0], digits.train.labels).predict(rows[1])
    assert np.array_equal(pixel_judge.classes(digits.test.images), expected)
    assert pixel_judge.about == "SVC(C=10) on the pixels of 1,257 real training images"


def test_of_many_training_images_the_seed_chooses_some(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.metrics.judge.MOST", 60)
    first, again, other = (PixelJudge(digits.train, seed) for seed in (1, 1, 2))
    said, repeated, changed = (judge.classes(digits.test.images) for judge in (first, again, other))
    assert first.about == "SVC(C=10) on the pixels of 60 real training images"
    assert torch.equal(said, repeated)
    assert not torch.equal(said, changed)
    assert 0.5 < (said == digits.test.labels).double().mean() < 0.97


def test_the_pixel_judge_agrees_with_real_images_by_class(pixel_judge: PixelJudge, digits: Dataset) -> None:
    values = agreement_values(pixel_judge, digits.test, digits.test, digits.class_names)
    assert values["label_agreement"] == values["judge_accuracy"] > 0.97
    assert set(values["per_class"]) == set("0123456789")
    assert sum(part["n"] for part in values["per_class"].values()) == values["judge_n"] == 360


def test_the_pixel_judge_recognises_nothing_in_noise(pixel_judge: PixelJudge, digits: Dataset, generator: torch.Generator) -> None:
    noise = torch.randint(0, 256, (300, 1, 8, 8), generator=generator, dtype=torch.uint8)
    values = agreement_values(pixel_judge, Split(noise, torch.arange(300) % 10), digits.test, digits.class_names)
    assert values["label_agreement"] < 0.2  # by chance 0.1


def test_the_model_judge_says_the_models_largest_logit(tiny_recipe: Recipe, digits: Dataset) -> None:
    model = tiny_recipe.model.build(10, 1, seed=3).train()
    judge = ModelJudge(model, "run x, step 3", "x")
    said = judge.classes(digits.test.images)
    assert model.training
    with torch.no_grad():
        assert torch.equal(said, model.eval()(to_model(digits.test.images)).argmax(1))
    assert len(said.unique()) > 1
    assert judge.about == "run x, step 3"


def test_agreement_is_counted_overall_and_by_class() -> None:
    test = Split(written(0, 1, 2, 2), torch.tensor([0, 1, 2, 1]))
    values = agreement_values(Reader(), Split(written(0, 0, 1, 2, 2), torch.tensor([0, 1, 1, 2, 2])), test, NAMES)
    assert values == {
        "label_agreement": 4 / 5,
        "label_agreement_ci95": list(wilson_interval(4, 5)),
        "per_class": {
            "cat": {"n": 1, "accuracy": 1, "ci95": list(wilson_interval(1, 1))},
            "dog": {"n": 2, "accuracy": 0.5, "ci95": list(wilson_interval(1, 2))},
            "fox": {"n": 2, "accuracy": 1, "ci95": list(wilson_interval(2, 2))},
        },
        "judge": "a reader",
        "judge_accuracy": 3 / 4,
        "judge_accuracy_ci95": list(wilson_interval(3, 4)),
        "judge_n": 4,
    }


@pytest.mark.parametrize(("said", "agreement"), [(1, 1.0), (0, 0.0)])
def test_samples_of_one_class_only_speak_of_that_class_only(said: int, agreement: float) -> None:
    test = Split(written(0, 1, 2), torch.arange(3))
    values = agreement_values(Reader(), Split(written(said, said, said), torch.tensor([1, 1, 1])), test, NAMES)
    assert values["label_agreement"] == agreement
    assert list(values["per_class"]) == ["dog"]
    assert values["per_class"]["dog"] == {"n": 3, "accuracy": agreement, "ci95": values["label_agreement_ci95"]}
    assert values["judge_accuracy"] == 1
