import numpy as np
import pytest
import torch

from gmmcli.data.dataset import Split
from gmmcli.data.loader import Data, Loader
from gmmcli.errors import RecipeError
from gmmcli.rng import stream
from gmmcli.types import to_bytes, to_model

CPU = torch.device("cpu")
N = 50


def numbered() -> Split:
    """Fifty images, each filled with its number, which is its label too."""
    return Split(torch.arange(N, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8), torch.arange(N))


def loader(seed: int = 1, **table: object) -> Loader:
    return Data(**({"batch_size": 8} | table)).build(numbered(), CPU, seed)  # type: ignore[arg-type]


def epoch(of: Loader, number: int) -> list[int]:
    steps = range(number * of.steps_per_epoch, (number + 1) * of.steps_per_epoch)
    return [int(label) for step in steps for label in of.batch(step, stream("cpu", step)).labels]


def test_an_epoch_visits_each_image_at_most_once() -> None:
    made = loader()
    assert made.steps_per_epoch == 6  # two images are left over, other ones each time
    for number in range(3):
        visited = epoch(made, number)
        assert len(visited) == len(set(visited)) == 48


def test_images_come_with_their_labels_and_in_the_model_range() -> None:
    batch = loader().batch(3, stream("cpu", 3))
    assert torch.equal(batch.images, to_model(batch.labels.byte())[:, None, None, None].expand(8, 1, 8, 8))


def test_the_order_differs_per_epoch_and_per_seed_and_repeats_with_both() -> None:
    orders = [epoch(loader(seed), number) for seed in (1, 2) for number in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch(loader(2), 1) == orders[3]


def test_a_batch_is_a_function_of_seed_and_step_whatever_came_before() -> None:
    table = {"noise_std": 0.1, "crop_padding": 2, "flip": True}
    walked, asked = loader(**table), loader(**table)
    batches = [walked.batch(step, stream("cpu", step)) for step in range(20)]
    for step in (19, 3, 7, 0, 12):
        again = asked.batch(step, stream("cpu", step))
        assert torch.equal(again.images, batches[step].images)
        assert torch.equal(again.labels, batches[step].labels)


def test_without_augmentation_images_pass_untouched(generator: torch.Generator) -> None:
    images = torch.rand(4, 3, 8, 8, generator=generator)
    before = generator.get_state()
    assert torch.equal(loader().augment(images, generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("padding", "flip"), [(1, False), (0, True), (2, True)])
def test_every_crop_and_mirror_of_the_reflected_image_comes_up_and_nothing_else(padding: int, flip: bool) -> None:
    image = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    shifts = range(2 * padding + 1)
    crops = [padded[:, row : row + 4, column : column + 4] for row in shifts for column in shifts]
    possible = {crop.tobytes() for crop in crops} | ({crop[:, :, ::-1].tobytes() for crop in crops} if flip else set())
    augmented = loader(crop_padding=padding, flip=flip).augment(torch.tensor(image).repeat(1000, 1, 1, 1), stream("cpu", 0))
    assert {out.numpy().tobytes() for out in augmented} == possible  # drawn per image: one batch has them all


def test_crops_and_mirrors_come_up_equally_often() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    augmented = loader(crop_padding=1, flip=True).augment(image.repeat(9000, 1, 1, 1), stream("cpu", 0))
    _, counts = torch.unique(augmented.flatten(1), dim=0, return_counts=True)
    assert len(counts) == 18
    assert (counts - 500).abs().max() < 5 * 500**0.5


def test_noise_has_the_std_asked_for() -> None:
    noisy = loader(noise_std=0.03).augment(torch.full((100, 1, 32, 32), 0.5), stream("cpu", 0))
    assert noisy.mean() == pytest.approx(0.5, abs=5 * 0.03 / 320)
    assert noisy.std() == pytest.approx(0.03, rel=5 / 450)  # the std's own std error is 1 / sqrt(2 n)
    assert noisy.shape == (100, 1, 32, 32)


def test_augmentation_leaves_the_bytes_alone() -> None:
    made = loader(noise_std=0.5, crop_padding=2, flip=True)
    made.batch(0, stream("cpu", 0))
    assert torch.equal(made.split.images, numbered().images)
    assert torch.equal(to_bytes(to_model(made.split.images)), made.split.images)


def test_a_batch_as_large_as_the_data_is_the_whole_epoch() -> None:
    made = loader(batch_size=N)
    assert made.steps_per_epoch == 1
    assert sorted(epoch(made, 0)) == list(range(N))


def test_a_batch_larger_than_the_data_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match=r"^data\.batch_size 51 is larger than the 50 training images$"):
        loader(batch_size=51)


def test_padding_must_be_smaller_than_the_image() -> None:
    assert loader(crop_padding=7).batch(0, stream("cpu", 0)).images.shape == (8, 1, 8, 8)
    with pytest.raises(RecipeError, match=r"^data\.crop_padding 8 does not fit images of 8 pixels$"):
        loader(crop_padding=8)


AUGMENTED = {"noise_std": 0.05, "crop_padding": 2, "flip": True}


def photographs() -> Split:
    """Fifty images that no crop and no mirror leaves as they are."""
    pixels = torch.randint(256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(pixels, torch.arange(N))


def test_a_batch_has_no_clean_images_unless_asked_for() -> None:
    assert loader(**AUGMENTED).batch(0, stream("cpu", 0)).clean is None


def test_clean_images_are_neither_cropped_nor_mirrored() -> None:
    made = Data(batch_size=8, crop_padding=2, flip=True).build(photographs(), CPU, 1)
    batch = made.batch(3, stream("cpu", 3), clean=True)
    assert batch.clean is not None
    assert torch.equal(batch.clean, to_model(made.split.images[batch.labels]))
    assert not torch.equal(batch.images, batch.clean)


def test_clean_images_have_noise_of_their_own() -> None:
    made = Data(batch_size=50, noise_std=0.05).build(photographs(), CPU, 1)
    batch = made.batch(0, stream("cpu", 0), clean=True)
    assert batch.clean is not None
    plain = to_model(made.split.images[batch.labels])
    first, second = ((images - plain).flatten() for images in (batch.images, batch.clean))
    for noise in (first, second):
        assert noise.std() == pytest.approx(0.05, rel=5 / (2 * 3200) ** 0.5)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 5 / 3200**0.5


@pytest.mark.parametrize("table", [AUGMENTED, {}, {"noise_std": 0.05}])
def test_the_augmented_images_are_the_same_with_and_without_clean_ones(table: dict[str, object]) -> None:
    with_clean, without = (loader(**table).batch(7, stream("cpu", 7), clean) for clean in (True, False))
    assert torch.equal(with_clean.images, without.images) and torch.equal(with_clean.labels, without.labels)
