"""What a run's images were: hashes that keep known images in their splits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gmmcli.data.dataset import Dataset, Split
from gmmcli.data.fingerprint import SPLITS, Fingerprint, hashes
from gmmcli.data.mapped import Mapped
from gmmcli.errors import DataError, RunError

NAMES = ("cat", "dog")


def split(*values: int, label: int = 0) -> Split:
    """An image of each value, all its pixels alike."""
    images = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)
    return Split(images, torch.full((len(values),), label))


def dataset(train: Split, validation: Split, test: Split, names: tuple[str, ...] = NAMES) -> Dataset:
    return Dataset("animals", names, train, validation, test)


def values(part: Split) -> list[int]:
    return part.batch()[0][:, 0, 0, 0].tolist()


def everywhere(data: Dataset) -> list[list[int]]:
    return [values(data.split(name)) for name in SPLITS]


BEFORE = dataset(split(1, 2, 3, 4), split(5, 6), split(7, 8))
KEPT = Fingerprint.of(BEFORE)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    KEPT.write(tmp_path / "data.safetensors")
    read = Fingerprint.read(tmp_path / "data.safetensors")
    assert read.class_names == NAMES
    for name in SPLITS:
        assert torch.equal(read.images[name], KEPT.images[name])
        assert torch.equal(read.labels[name], KEPT.labels[name])
    assert [path.name for path in tmp_path.iterdir()] == ["data.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02" + bytes(7) + b"{}"])
def test_a_damaged_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"data\.safetensors is damaged"):
        Fingerprint.read(tmp_path / "data.safetensors")


def test_hashes_tell_every_image_from_every_other_and_not_where_it_lies() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    in_memory = Split(torch.from_numpy(images).permute(0, 3, 1, 2), torch.zeros(50, dtype=torch.int64))
    mapped = Split(Mapped.whole(images), in_memory.labels)
    assert len(hashes(in_memory).unique()) == 50
    assert torch.equal(hashes(in_memory), hashes(mapped))
    before = hashes(in_memory)
    images[7, 3, 3, 1] ^= 1  # one bit; both are views of the array
    assert (hashes(in_memory) != before).nonzero().flatten().tolist() == [7]


def test_unchanged_data_come_back_as_they_are() -> None:
    assert KEPT.settled(BEFORE) == (BEFORE, "")


def test_images_return_to_where_they_were_and_new_ones_are_tested_on() -> None:
    dealt_again = dataset(split(7, 9, 2, 5), split(8, 1), split(3, 6, 4))
    settled, change = KEPT.settled(dealt_again)
    assert everywhere(settled) == [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
    assert change == "1 image is new"


def test_what_is_gone_is_told() -> None:
    settled, change = KEPT.settled(dataset(split(1, 9), split(5, 6), split(7, 10)))
    assert everywhere(settled) == [[1], [5, 6], [7, 9, 10]]
    assert change == "2 images are new, 4 images are gone"


def test_no_copy_of_a_training_image_is_new_nor_is_one_under_another_label() -> None:
    more = split(1, 5, 7, label=1)
    test = Split(torch.cat([split(7, 8, 2).images, more.images]), torch.cat([split(7, 8, 2).labels, more.labels]))
    settled, change = KEPT.settled(dataset(split(1, 2, 3, 4), split(5, 6), test))
    assert everywhere(settled) == [[1, 2, 3, 4], [5, 6], [7, 8, 7]]
    assert change == "1 image is new, 3 images are left out: training has used the same"


def test_copies_that_were_in_two_splits_stay_in_both() -> None:
    twice = dataset(split(1, 1, 2), split(3), split(1, 4))
    kept = Fingerprint.of(twice)
    settled, change = kept.settled(dataset(split(4, 1, 3), split(1), split(2, 1, 5)))
    assert everywhere(settled) == [[1, 1, 2], [3], [1, 4, 5]]
    assert change == "1 image is new"
    assert values(kept.unused("test", split(1, 2, 3, 4, 9))) == [1, 4, 9]


def test_each_split_is_kept_from_those_before_it() -> None:
    every = split(*range(1, 10))
    assert values(KEPT.unused("test", every)) == [7, 8, 9]
    assert values(KEPT.unused("validation", every)) == [5, 6, 7, 8, 9]
    assert values(KEPT.unused("train", every)) == values(every)


def test_other_classes_are_not_settled() -> None:
    other = dataset(split(1), split(2), split(3), ("cat", "fox"))
    assert KEPT.settled(other) == (other, "its classes are others")


def test_nothing_left_of_a_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no image is left of the validation images it had \(2 images are gone\)"):
        KEPT.settled(dataset(split(1, 2), split(3, 4), split(7, 8)))


def test_mapped_images_are_compared_by_a_sample_and_settled_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(1, 31, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    whole = Split(Mapped.whole(images), torch.zeros(30, dtype=torch.int64))

    def dealt(*ends: int) -> Dataset:
        return dataset(*(whole.take(torch.arange(*ends[i : i + 2])) for i in range(3)))

    kept = Fingerprint.of(dealt(0, 10, 20, 30))
    monkeypatch.setattr("gmmcli.data.fingerprint.SAMPLE", 3)
    assert kept.matches("train", dealt(0, 10, 20, 30).train)
    assert not kept.matches("train", whole.take(torch.arange(1, 11)))
    settled, change = kept.settled(dealt(0, 8, 21, 30))
    assert everywhere(settled) == [[*range(1, 11)], [*range(11, 21)], [*range(21, 31)]]
    assert settled.train.mapped
    assert change == "its images are in other splits"


def test_mapped_images_of_two_files_are_not_joined() -> None:
    images = np.arange(1, 31, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    train, test = (Split(Mapped.whole(part), torch.zeros(len(part), dtype=torch.int64)) for part in (images[:20], images[20:]))

    def added(n: int) -> Dataset:
        return dataset(train.take(torch.arange(2, 14 + n)), train.take(torch.arange(2)), test)

    settled, change = Fingerprint.of(added(0)).settled(added(3))
    assert everywhere(settled) == [[*range(3, 15)], [1, 2], [*range(21, 31)]]
    assert all(settled.split(name).mapped for name in SPLITS)
    assert change == "3 images are new"


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data.safetensors").mkdir()
    with pytest.raises(RunError, match=r"data\.safetensors is damaged"):
        Fingerprint.read(tmp_path / "data.safetensors")
