import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from gmmcli.core.buffer import Dtype, ReplayBuffer, decode
from gmmcli.core.starts import GaussianStarts, UniformStarts

SHAPE = (3, 4, 4)
DTYPES = ["float32", "float16", "uint8"]
ERROR = {"float32": 0.0, "float16": 1e-3, "uint8": 1 / 255 + 1e-6}


def noise(n_classes: int, slots: int, shape: tuple[int, int, int], dtype: Dtype, generator: torch.Generator) -> ReplayBuffer:
    """A buffer whose chains all start from U(-1, 1)."""
    return ReplayBuffer.started(UniformStarts(shape), n_classes, slots, dtype, generator)


def uniform(n: int, shape: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    return UniformStarts(shape)(torch.zeros(n, dtype=torch.long), generator)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_fills_the_model_range_evenly(dtype: Dtype, generator: torch.Generator) -> None:
    buffer = noise(5, 8, SHAPE, dtype, generator)
    assert buffer.images.shape == (5, 8, *SHAPE) and buffer.slots == 8
    assert buffer.images.dtype == getattr(torch, dtype)
    values = decode(buffer.images).flatten()
    if dtype == "uint8":  # the grid back into a continuum
        values = values + (torch.rand(len(values), generator=generator) - 0.5) * 2 / 255
    assert kstest(values, "uniform", (-1, 2)).pvalue > 0.01
    assert all(not torch.equal(buffer.images[0], other) for other in buffer.images[1:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_slot_starts_from_its_own_class(dtype: Dtype, generator: torch.Generator) -> None:
    """Three point masses, so that the draw is known: what the slots of a class hold is its mean."""
    means = torch.tensor([-0.75, 0.0, 0.5])
    starts = GaussianStarts(SHAPE, means[:, None].expand(3, 48).contiguous(), torch.zeros(3, 1, 48))
    buffer = ReplayBuffer.started(starts, 3, 7, dtype, generator)
    assert buffer.images.dtype == getattr(torch, dtype)
    expected = means[:, None, None, None, None].expand(3, 7, *SHAPE)
    torch.testing.assert_close(decode(buffer.images), expected, atol=ERROR[dtype], rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 2**31), n_classes=st.integers(1, 5), slots=st.integers(1, 9))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_what_is_written_is_read_back_as_float32(dtype: Dtype, seed: int, n_classes: int, slots: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    buffer = noise(n_classes, slots, SHAPE, dtype, rng)
    labels = torch.arange(n_classes)
    images = uniform(n_classes, SHAPE, rng)
    places, _ = buffer.draw(labels, rng)
    buffer.write(labels, places, images)
    found = decode(buffer.images[labels, places])
    assert found.dtype == torch.float32
    assert (found - images).abs().max() <= ERROR[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_write_changes_the_drawn_slots_and_no_others(dtype: Dtype, generator: torch.Generator) -> None:
    buffer = noise(4, 6, SHAPE, dtype, generator)
    before, labels = buffer.images.clone(), torch.tensor([3, 0, 3, 1])
    places, _ = buffer.draw(labels, generator)
    buffer.write(labels, places, torch.zeros(4, *SHAPE))
    changed = (buffer.images != before).flatten(2).any(2)
    expected = torch.zeros(4, 6, dtype=torch.bool)
    for label, place in zip(labels.tolist(), places.tolist(), strict=True):
        expected[label, place] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_class_is_the_position(dtype: Dtype, generator: torch.Generator) -> None:
    buffer = noise(3, 50, SHAPE, dtype, generator)
    values = torch.tensor([-1.0, 1.0, 0.5])
    buffer.images.copy_((values if dtype != "uint8" else torch.tensor([0, 255, 191]))[:, None, None, None, None])
    labels = torch.randint(3, (40,), generator=generator)
    _, images = buffer.draw(labels, generator)
    torch.testing.assert_close(images, values[labels][:, None, None, None].expand(-1, *SHAPE), atol=5e-3, rtol=0)


def test_drawn_images_are_copies(generator: torch.Generator) -> None:
    buffer = noise(2, 3, SHAPE, "float32", generator)
    before = buffer.images.clone()
    _, images = buffer.draw(torch.tensor([0, 1]), generator)
    images.zero_()
    assert torch.equal(buffer.images, before)


def test_every_slot_is_drawn_equally_often(generator: torch.Generator) -> None:
    buffer = noise(2, 7, (1, 1, 1), "float32", generator)
    places, images = buffer.draw(torch.ones(7000, dtype=torch.long), generator)
    assert chisquare(places.bincount(minlength=7)).pvalue > 0.01
    assert torch.equal(images, buffer.images[1, places])


@pytest.fixture
def several_threads() -> Iterator[None]:
    """Indexed writes with duplicates race in torch as soon as there are two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("several_threads")
def test_of_two_chains_in_one_slot_the_later_stays(generator: torch.Generator) -> None:
    buffer = noise(2, 3, (3, 32, 32), "float32", generator)
    images = uniform(66, (3, 32, 32), generator)
    labels, places = torch.arange(66) % 2, torch.arange(66) % 3
    for _ in range(8):  # a race is not lost every time
        buffer.images.zero_()
        buffer.write(labels, places, images)
        assert torch.equal(buffer.images[labels[60:], places[60:]], images[60:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_snapshot_is_the_buffer_of_its_moment_whatever_is_written_while_it_is_read(
    dtype: Dtype, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = noise(3, 5, SHAPE, dtype, generator)
    monkeypatch.setattr("gmmcli.core.buffer.PIECE", 4 * buffer.images[0, 0].nbytes)

    def write() -> None:
        labels = torch.randint(3, (6,), generator=generator)
        buffer.write(labels, torch.randint(5, (6,), generator=generator), uniform(6, SHAPE, generator))

    write()
    before, snapshot = buffer.images.clone(), buffer.snapshot()
    write()
    found = []
    for piece in snapshot.pieces():
        found.append(piece)
        write()
        write()
    assert [len(piece) for piece in found] == [4, 4, 4, 3]
    assert torch.equal(torch.cat(found), before.flatten(0, 1))
    assert (snapshot.shape, snapshot.dtype) == (before.shape, before.dtype)
    second, now = buffer.snapshot(), buffer.images.clone()
    snapshot.close()  # which is nothing to the other
    write()
    assert torch.equal(torch.cat(list(second.pieces())), now.flatten(0, 1))
    assert not torch.equal(buffer.images, now)


def test_a_snapshot_is_exact_while_another_thread_writes(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = noise(4, 250, SHAPE, "float32", generator)
    monkeypatch.setattr("gmmcli.core.buffer.PIECE", buffer.images[0, 0].nbytes)
    labels = torch.arange(4).repeat_interleave(8)
    before, snapshot, over = buffer.images.clone(), buffer.snapshot(), threading.Event()

    def chains() -> None:
        while not over.is_set():
            buffer.write(labels, torch.randint(250, (32,), generator=generator), uniform(32, SHAPE, generator))

    writer = threading.Thread(target=chains)
    writer.start()
    found = torch.cat(list(snapshot.pieces()))
    over.set()
    writer.join()
    assert torch.equal(found, before.flatten(0, 1))
    assert not torch.equal(buffer.images, before)
