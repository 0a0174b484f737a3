"""Accuracy and its Wilson interval."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from gmmcli.data.dataset import Split
from gmmcli.evaluate.accuracy import accuracy_result, wilson_interval
from gmmcli.recipe import Recipe
from gmmcli.types import to_model


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (9, 10), (50, 100), (9973, 10_000), (0, 10_000)])
def test_the_interval_is_scipys(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)


counts = st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
@settings(deadline=None, max_examples=100)
def test_the_interval_holds_the_share_stays_in_the_unit_range_and_mirrors(count: tuple[int, int]) -> None:
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n + 1e-15
    assert successes / n - 1e-15 <= high <= 1
    assert high - low > 0
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_more_images_narrow_the_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(9 * n // 10, n) for n in (10, 100, 1000, 10_000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_result_counts_one_image_at_a_time(tiny_recipe: Recipe, split: str) -> None:
    dataset = tiny_recipe.data.source.load()
    model = tiny_recipe.model.build(10, 1, seed=3)
    images, labels = dataset.split(split)  # type: ignore[arg-type]  # a parametrised literal
    with torch.no_grad():
        right = sum(int(model(to_model(images[i : i + 1])).argmax()) == int(labels[i]) for i in range(len(labels)))
    result = accuracy_result(model, dataset, split)  # type: ignore[arg-type]
    assert (result["dataset"], result["split"], result["n"]) == ("digits", split, len(labels))
    assert result["values"] == {"accuracy": right / len(labels), "ci95": list(wilson_interval(right, len(labels)))}
    assert 0 < right < len(labels)
    assert "Wilson" in result["protocol"]["interval"]


def test_the_default_split_is_the_test_split(tiny_recipe: Recipe) -> None:
    dataset = tiny_recipe.data.source.load()
    model = tiny_recipe.model.build(10, 1, seed=3)
    assert accuracy_result(model, dataset) == accuracy_result(model, dataset, "test")


def test_measuring_leaves_the_model_as_it_was(tiny_recipe: Recipe) -> None:
    dataset = tiny_recipe.data.source.load()
    model = tiny_recipe.model.build(10, 1, seed=3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    accuracy_result(model, dataset)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_labels_moved_by_one_are_all_wrong_for_a_perfect_model(tiny_recipe: Recipe) -> None:
    dataset = tiny_recipe.data.source.load()
    model = tiny_recipe.model.build(10, 1, seed=3)
    with torch.no_grad():
        said = model.eval()(to_model(dataset.test.images)).argmax(1)
    for shift, accuracy in ((0, 1.0), (1, 0.0)):
        object.__setattr__(dataset, "test", Split(dataset.test.images, (said + shift) % 10))
        assert accuracy_result(model, dataset)["values"]["accuracy"] == accuracy
