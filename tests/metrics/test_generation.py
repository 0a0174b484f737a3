from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gmmcli.data.digits import Digits
from gmmcli.metrics.features.spaces import Space, pixel_space
from gmmcli.metrics.frechet import Moments, frechet_distance, kernel_distance
from gmmcli.metrics.generation import beside_values, distance_values, generation_protocol, most_confident, neighbour_values
from gmmcli.metrics.judge import pixels
from gmmcli.metrics.manifold import manifold_values


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes_of(features: Tensor) -> Tensor:
    """Certain of the largest feature's class."""
    return torch.nn.functional.one_hot(features.argmax(1), features.shape[1]).double()


PLAIN = Space("pixels", "pixels in [-1, 1]", lambda images: images.flatten(1).float())
INCEPTION = Space("inception", "Inception", lambda images: images.flatten(1).float(), classes_of)


def test_fid_is_called_fid_in_inceptions_space_only() -> None:
    samples, reference = normal(1, 30, 4), normal(2, 40, 4)
    plain, inception = (distance_values(space, samples, reference, None, 1) for space in (PLAIN, INCEPTION))
    assert set(plain) == {"feature_fid", "feature_fid_ci95", "feature_kid", "feature_kid_std", "feature_kid_ci95"}
    assert set(inception) == {"fid", "fid_ci95", "kid", "kid_std", "kid_ci95", "is_mean", "is_std", "is_mean_ci95"}
    assert list(plain.values()) == [inception[name] for name in ("fid", "fid_ci95", "kid", "kid_std", "kid_ci95")]


def test_the_distances_are_those_of_samples_to_the_reference() -> None:
    samples, reference = normal(1, 30, 4) * 2, normal(2, 40, 4)
    values = distance_values(PLAIN, samples, reference, None, 5)
    assert values["feature_fid"] == frechet_distance(Moments.of(samples), Moments.of(reference))
    kernel = kernel_distance(samples, reference, 5)
    assert (values["feature_kid"], values["feature_kid_std"]) == kernel[:2]
    assert values["feature_kid_ci95"] == pytest.approx([kernel.mean - 1.96 * kernel.error, kernel.mean + 1.96 * kernel.error], rel=1e-4)
    assert values["feature_kid"] != distance_values(PLAIN, samples, reference, None, 6)["feature_kid"]


def test_given_moments_stand_for_the_reference_in_the_frechet_distance_alone() -> None:
    samples, reference = normal(1, 30, 4), normal(2, 40, 4) + 3
    own, given_ = (distance_values(PLAIN, samples, reference, moments, 1) for moments in (None, Moments.of(samples)))
    assert given_["feature_fid"] == pytest.approx(0, abs=1e-6)
    assert own["feature_fid"] > 9
    assert own["feature_kid"] == given_["feature_kid"]


@pytest.mark.parametrize("n", [0, 1])
def test_a_single_sample_has_no_distance(n: int) -> None:
    with pytest.raises(ValueError, match="two images or more"):
        distance_values(PLAIN, normal(1, n, 4), normal(2, 40, 4), None, 1)


def test_the_inception_score_does_not_mind_that_samples_come_class_by_class() -> None:
    k, each = 5, 200
    by_class = torch.eye(k).repeat_interleave(each, 0)
    mixed = by_class.view(k, each, k).transpose(0, 1).reshape(-1, k)
    sorted_score, mixed_score = (distance_values(INCEPTION, samples, normal(2, 40, k), None, 1)["is_mean"] for samples in (by_class, mixed))
    assert mixed_score == pytest.approx(k, rel=0.05)
    assert sorted_score == pytest.approx(k, rel=0.05)  # ten splits of a hundred, each of nearly all classes


def test_the_interval_of_the_inception_score_is_students_over_the_ten_splits() -> None:
    values = distance_values(INCEPTION, normal(1, 200, 5), normal(2, 40, 5), None, 1)
    spread = 2.2622 * values["is_std"] / 3  # of nine degrees of freedom; the std is that of all ten, not an estimate
    assert values["is_mean_ci95"] == pytest.approx([values["is_mean"] - spread, values["is_mean"] + spread], rel=1e-4)


def odds(logits: Tensor) -> Tensor:
    probs = torch.softmax(logits.double(), 1).max(1).values
    return probs / (1 - probs)


SHARES = ["0.01", "0.07", "0.1", "0.25", "0.5", "0.99", "1"]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(2, 5), st.sampled_from(SHARES))
def test_of_each_predicted_class_the_most_confident_share_is_kept(seed: int, n: int, n_classes: int, share: str) -> None:
    logits = normal(seed, n, n_classes)
    kept = most_confident(logits, float(share))
    predicted, confidence = logits.argmax(1), odds(logits)
    assert kept.tolist() == sorted(set(kept.tolist()))
    left = torch.ones(n, dtype=torch.bool)
    left[kept] = False
    for k in range(n_classes):
        own, out = kept[predicted[kept] == k], left & (predicted == k)
        assert len(own) == ceil(Fraction(share) * int((predicted == k).sum()))
        if len(own) and out.any():
            assert confidence[own].min() >= confidence[out].max() * (1 - 1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_a_hundred_is_its_percentage(share: str) -> None:
    logits = torch.stack([1 + torch.arange(100.0), torch.zeros(100)], 1)
    kept = round(float(share) * 100)
    assert most_confident(logits, float(share)).tolist() == list(range(100 - kept, 100))


def test_confidence_is_told_apart_where_probabilities_round_to_one() -> None:
    logits = torch.tensor([[200.0, 0], [400.0, 0], [300.0, 0], [0, 500.0], [0, 600.0]])
    assert torch.softmax(logits, 1).max(1).values.eq(1).all()
    assert most_confident(logits, 0.5).tolist() == [1, 2, 4]


def test_a_class_that_is_never_predicted_is_no_trouble() -> None:
    assert most_confident(torch.tensor([[0.0, 5, 0], [0, 4, 0]]), 0.5).tolist() == [0]


def test_neighbours_are_those_of_the_manifold() -> None:
    samples, reference = normal(1, 40, 3) * 1.5 + 0.5, normal(2, 60, 3)
    expected = manifold_values(reference.numpy(), samples.numpy())
    assert expected["precision"] != expected["recall"]
    found = neighbour_values(samples, reference, 1)
    assert found.keys() == expected.keys()
    assert all(found[name] == pytest.approx(expected[name]) for name in found)


def test_of_many_images_of_either_kind_the_seed_chooses_some(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def listening(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
        asked.append((real, fake))
        return {}

    monkeypatch.setattr("gmmcli.metrics.generation.MOST", 20)
    monkeypatch.setattr("gmmcli.metrics.generation.manifold_values", listening)
    samples, reference = normal(1, 50, 3), normal(2, 60, 3)
    for seed in (1, 1, 2):
        neighbour_values(samples, reference, seed)
    for real, fake in asked:
        for few, all_of_them in ((real, reference), (fake, samples)):
            assert len({tuple(row) for row in few.tolist()} & {tuple(row) for row in all_of_them.tolist()}) == 20
    assert all(np.array_equal(*pair) for pair in zip(asked[0], asked[1], strict=True))
    assert not any(np.array_equal(*pair) for pair in zip(asked[0], asked[2], strict=True))


def test_real_digits_are_near_real_digits_and_noise_is_far(generator: torch.Generator) -> None:
    dataset = Digits().load()
    noise = torch.randint(0, 256, (200, 1, 8, 8), generator=generator, dtype=torch.uint8)
    real, good, bad = (torch.from_numpy(pixels(images)) for images in (dataset.train.images[:600], dataset.test.images[:200], noise))
    near, far = (distance_values(pixel_space(), samples, real, None, 1) for samples in (good, bad))
    assert near["feature_fid"] < 0.1 * far["feature_fid"]
    assert abs(near["feature_kid"]) < 0.1 * far["feature_kid"]
    inside, outside = (neighbour_values(samples, real, 1) for samples in (good, bad))
    assert all(inside[name] > 0.5 for name in ("precision", "recall", "density", "coverage"))
    assert outside["precision"] == outside["density"] == outside["coverage"] == 0


@pytest.mark.parametrize(("space", "score"), [(PLAIN, None), (INCEPTION, "10 splits, samples shuffled")])
def test_the_protocol_says_how(space: Space, score: str | None) -> None:
    protocol = generation_protocol(space, 1437)
    assert (protocol["space"], protocol["features"], protocol["n_reference"], protocol["is"]) == (space.name, space.about, 1437, score)
    assert "100 subsets of at most 1000" in protocol["kid"]
    assert "k = 5" in protocol["neighbours"]


def test_images_that_stand_beside_samples_have_the_samples_figures() -> None:
    images, reference = normal(1, 40, 3) + 0.5, normal(2, 60, 3)
    values = beside_values(PLAIN, images, reference, Moments.of(reference), 1)
    assert values.pop("n") == 40
    own = distance_values(PLAIN, images, reference, None, 1) | neighbour_values(images, reference, 1)
    assert values == {name: value for name, value in own.items() if "kid" not in name}
    assert values["feature_fid_ci95"][0] < values["feature_fid"] < values["feature_fid_ci95"][1]
