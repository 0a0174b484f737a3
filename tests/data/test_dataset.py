import numpy as np
import pytest
import torch

from gmmcli.data.dataset import Dataset, Split, chunks, concatenate, hold_out, subset
from gmmcli.errors import DataError


def split(n: int = 6, channels: int = 1, height: int = 8, width: int = 8, n_classes: int = 2) -> Split:
    return Split(torch.zeros(n, channels, height, width, dtype=torch.uint8), torch.arange(n) % n_classes)


def with_label(label: int, at: int) -> Split:
    images, labels = split().batch()
    labels[at] = label
    return Split(images, labels)


def test_a_sound_dataset_knows_its_shape_and_splits() -> None:
    train, validation, test = split(6, 3), split(2, 3), split(4, 3)
    dataset = Dataset("toy", ("cat", "dog"), train, validation, test)
    assert (dataset.n_classes, dataset.shape) == (2, (3, 8, 8))
    assert dataset.split("train") is train
    assert dataset.split("validation") is validation
    assert dataset.split("test") is test


BROKEN = {
    "label too large": ((with_label(2, at=3), split(), split()), "toy, train: label 2 of image 3 is outside 0..1"),
    "label negative": ((split(), split(), with_label(-1, at=5)), "toy, test: label -1 of image 5 is outside 0..1"),
    "sizes differ between splits": (
        (split(), split(height=16, width=16), split()),
        "toy, validation: images are 16 x 16 x 1, those of train 8 x 8 x 1",
    ),
    "channels differ between splits": ((split(), split(), split(channels=3)), "toy, test: images are 8 x 8 x 3, those of train 8 x 8 x 1"),
    "four channels": ((split(channels=4), split(channels=4), split(channels=4)), "toy, train: images have 4 channels"),
    "not square": ((split(width=9), split(width=9), split(width=9)), "toy, train: images are 8 x 9 x 1"),
    "too small": ((split(height=7, width=7),) * 3, "toy, train: images are 7 x 7 x 1"),
    "empty train": ((split(0), split(), split()), "toy, train: no images"),
    "empty validation": ((split(), split(0), split()), "toy, validation: no images"),
    "empty test": ((split(), split(), split(0)), "toy, test: no images"),
    "labels missing": ((split(), split(), Split(split(6).images, split(5).labels)), "toy, test: 6 images but 5 labels"),
}


@pytest.mark.parametrize(("splits", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_dataset_is_one_sentence_and_a_hint(splits: tuple[Split, Split, Split], message: str) -> None:
    with pytest.raises(DataError) as error:
        Dataset("toy", ("cat", "dog"), *splits)
    assert error.value.message == message
    assert error.value.hint
    assert error.value.exit_code == 3


UNTRAINABLE = {
    "one class": (("face",), split(n_classes=1), "toy has one class only, and a classifier needs two"),
    "a class without images": (("cat", "dog"), split(n_classes=1), "toy: no training image of class 'dog'"),
    "classes without images": (("cat", "dog", "fox", "owl"), with_label(2, at=0), "toy: no training image of class 'owl'"),
    "none of several": (("cat", "dog", "fox"), split(n_classes=1), "toy: no training image of class 'dog', 'fox'"),
    "none of very many": (
        tuple(map(str, range(50_000))),
        split(n_classes=1),
        "toy: no training image of class '1', '2', '3', '4', '5', '6', '7', '8', '9', '10' and 49,989 others",
    ),
}


@pytest.mark.parametrize(("names", "train", "message"), UNTRAINABLE.values(), ids=UNTRAINABLE.keys())
def test_what_can_be_looked_at_but_not_learnt_is_told_when_training_is_meant(names: tuple[str, ...], train: Split, message: str) -> None:
    dataset = Dataset("toy", names, train, split(n_classes=1), split(n_classes=1))
    with pytest.raises(DataError) as error:
        dataset.check_trainable()
    assert error.value.message == message
    assert error.value.hint
    assert error.value.exit_code == 3


def test_every_class_must_be_in_training_and_in_no_other_split() -> None:
    Dataset("toy", ("cat", "dog"), split(), split(n_classes=1), split(n_classes=1)).check_trainable()


def numbered(n: int, n_classes: int) -> Split:
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 8, 8)
    return Split(images, torch.arange(n) % n_classes)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_hold_out_takes_its_share_of_every_class_and_loses_nothing(share: float) -> None:
    kept, held = hold_out(numbered(200, 4), share, "toy")
    assert len(held.labels) == round(200 * share)
    assert np.ptp(held.labels.bincount().numpy()) <= 1  # 50 images a class: equal shares, up to rounding
    ids = torch.cat([kept.images[:, 0, 0, 0], held.images[:, 0, 0, 0]])
    assert sorted(ids.tolist()) == list(range(200))
    for part in (kept, held):
        assert torch.equal(part.images[:, 0, 0, 0] % 4, part.labels.to(torch.uint8))  # labels went along


def test_hold_out_is_always_the_same_whatever_the_global_randomness() -> None:
    np.random.seed(1)
    first = hold_out(numbered(100, 5), 0.2, "toy")
    np.random.seed(2)
    second = hold_out(numbered(100, 5), 0.2, "toy")
    assert all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True))


def test_a_share_too_small_for_the_classes_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^toy: cannot hold out a share of 0\.1 of 20 images, class by class"):
        hold_out(numbered(20, 10), 0.1, "toy")


def test_a_class_of_one_image_cannot_be_divided() -> None:
    split = numbered(20, 4)
    split.labels[7] = 9
    with pytest.raises(DataError, match=r"^toy: image 7 is the only one with label 9, and one is needed to train on"):
        hold_out(split, 0.2, "toy")


def in_order(n: int = 10) -> Split:
    return Split(torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8), torch.arange(n) % 3)


def test_a_batch_has_images_and_labels_in_the_order_of_the_positions() -> None:
    images, labels = in_order().batch(torch.tensor([7, 2, 2]))
    assert images[:, 0, 0, 0].tolist() == [7, 2, 2]
    assert labels.tolist() == [1, 2, 2]
    assert [len(part) for part in in_order().batch()] == [len(in_order())] * 2 == [10, 10]


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 2]), (10, [10]), (99, [10])])
def test_chunks_are_all_images_in_their_order(size: int, sizes: list[int]) -> None:
    parts = list(in_order().chunks(size))
    assert list(map(len, parts)) == sizes
    assert torch.cat(parts)[:, 0, 0, 0].tolist() == list(range(10))
    for images in (in_order(), in_order().images):
        assert all(torch.equal(*pair) for pair in zip(parts, chunks(images, size), strict=True))


def test_chunks_within_a_slice_are_its_images_and_of_none_an_empty_batch_of_their_shape() -> None:
    for images in (in_order(), in_order().images):
        parts = list(chunks(images, 3, slice(4, 8)))
        assert [part[:, 0, 0, 0].tolist() for part in parts] == [[4, 5, 6], [7]]
        assert [part.shape for part in chunks(images, 3, slice(0, 0))] == [(0, 1, 8, 8)]


def test_images_like_others_are_as_many_of_each_class_drawn_by_the_seed() -> None:
    split = Split(torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 1, 8, 8), torch.arange(60) % 3)
    wanted = torch.tensor([2, 0, 2, 2])
    drawn, labels = split.like(wanted, seed=1).batch()
    assert labels.tolist() == [0, 2, 2, 2]
    values = drawn[:, 0, 0, 0].tolist()
    assert [value % 3 for value in values] == labels.tolist()
    assert len({*values}) == 4
    assert (
        values == split.like(wanted, seed=1).batch()[0][:, 0, 0, 0].tolist() != split.like(wanted, seed=2).batch()[0][:, 0, 0, 0].tolist()
    )
    assert len(split.like(torch.zeros(99, dtype=torch.long), seed=1)) == 20  # all there are
    assert len(Split(split.images, torch.zeros(60, dtype=torch.long)).like(torch.tensor([1]), seed=1)) == 0


def test_a_subset_is_drawn_by_the_seed_and_a_whole_one_copies_nothing() -> None:
    split = in_order()
    assert split.subset(4, seed=1).images[:, 0, 0, 0].tolist() == subset(10, 4, seed=1).tolist()
    assert split.subset(None, seed=1) is split.subset(10, seed=1) is split


def test_splits_are_joined_one_after_the_other() -> None:
    joined = concatenate(in_order(3), in_order(2))
    assert joined.images[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert joined.labels.tolist() == [0, 1, 2, 0, 1]
