import shutil
from itertools import combinations, pairwise
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, norm
from torch import Tensor

from gmmcli.data.dataset import Dataset, Split
from gmmcli.data.digits import Digits
from gmmcli.data.outliers import default_sets, interpolated, left_out, matched, outliers, usual_sets
from gmmcli.errors import DataError, RecipeError

MADE = ("interp", "uniform", "gaussian")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def bell(n: int, mean: tuple[float, ...], std: tuple[float, ...], size: int = 16) -> Tensor:
    """Images whose channels have these moments, up to the sampling error."""
    rng = torch.Generator().manual_seed(0)
    drawn = torch.randn(n, len(mean), size, size, generator=rng) * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return drawn.round().clamp(0, 255).byte()


def dataset(test: Tensor, name: str = "toy") -> Dataset:
    few = Split(torch.zeros(2, *test.shape[1:], dtype=torch.uint8), torch.tensor([0, 1]))
    return Dataset(name, ("cat", "dog"), few, few, Split(test, torch.arange(len(test)) % 2))


def paint(path: Path, grey: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path)


def greys(images: Tensor) -> list[int]:
    assert all(image.unique().numel() == 1 for image in images)
    return images[:, 0, 0, 0].tolist()


def parents(images: Tensor, children: Tensor) -> list[frozenset[int]]:
    """Which two images each child is the mean of, up to the rounding, by trying all."""
    pairs = torch.tensor(list(combinations(range(len(images)), 2)))
    flat = images.flatten(1).float()
    means = (flat[pairs[:, 0]] + flat[pairs[:, 1]]) / 2
    found = []
    for child in children.flatten(1).float():
        fitting = ((means - child).abs().amax(1) <= 0.5).nonzero().flatten()
        assert len(fitting) == 1
        found.append(frozenset(pairs[fitting[0]].tolist()))
    return found


@pytest.mark.parametrize(("n", "expected"), [(10_000, 9_900), (300, 200), (200, 100), (199, 100), (60, 30), (7, 4), (2, 1)])
def test_interp_lacks_one_batch_of_a_hundred_and_small_sets_are_halved(n: int, expected: int) -> None:
    images = interpolated(noise(n, 1, 8, 8), seed=1)
    assert (images.shape, images.dtype) == ((expected, 1, 8, 8), torch.uint8)


def test_interp_is_the_mean_of_counterparts_in_neighbouring_batches() -> None:
    """Of three batches of a shuffled set, every place has one image in each: two means that share the middle one."""
    images = noise(300, 1, 2, 4)
    found = parents(images, interpolated(images, seed=1))
    earlier, later = found[:100], found[100:]
    assert all(len(one & other) == 1 for one, other in zip(earlier, later, strict=True))
    chains = [one | other for one, other in zip(earlier, later, strict=True)]
    assert frozenset().union(*chains) == frozenset(range(300))
    assert any(pair != {i, i + 100} for i, pair in enumerate(earlier))


@pytest.mark.parametrize("n", [20, 31])
def test_interp_of_a_small_set_is_of_two_halves(n: int) -> None:
    images = noise(n, 1, 2, 4)
    found = parents(images, interpolated(images, seed=1))
    assert len(set(found)) == n - n // 2
    assert frozenset().union(*found) == frozenset(range(n))


@pytest.mark.parametrize(("low", "high", "allowed"), [(10, 20, {15}), (10, 11, {10, 11}), (254, 255, {254, 255}), (255, 255, {255})])
def test_interp_rounds_and_never_wraps_around(low: int, high: int, allowed: set[int]) -> None:
    two = torch.tensor([low, high], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 8, 8)
    assert set(greys(interpolated(two, seed=1))) <= allowed


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_is_a_function_of_its_name_and_seed(name: str) -> None:
    toy = dataset(noise(40, 3, 8, 8))
    torch.manual_seed(0)
    first = outliers(name, toy, seed=1).images
    torch.manual_seed(1)
    assert torch.equal(outliers(name, toy, seed=1).images, first)
    assert not torch.equal(outliers(name, toy, seed=2).images, first)
    assert (first.dtype, first.shape[1:]) == (torch.uint8, toy.shape)


def test_interp_is_made_of_the_test_images() -> None:
    toy = dataset(noise(40, 3, 8, 8))
    found = outliers("interp", toy, seed=3)
    assert torch.equal(found.images, interpolated(toy.test.images, seed=3))
    assert "two test images" in found.about


def test_every_byte_of_uniform_is_as_likely_as_any_other() -> None:
    images = outliers("uniform", dataset(bell(50, (200.0,), (3.0,))), seed=1).images
    assert images.shape == (50, 1, 16, 16)
    assert chisquare(images.flatten().bincount(minlength=256)).pvalue > 0.01


def test_gaussian_has_the_moments_of_each_channel_of_the_test_images() -> None:
    toy = dataset(bell(100, (60.0, 128.0, 190.0), (5.0, 20.0, 12.0)))
    channels = [images.transpose(0, 1).flatten(1).double() for images in (toy.test.images, outliers("gaussian", toy, seed=1).images)]
    for truth, drawn in zip(*channels, strict=True):
        n = len(drawn)
        assert abs(drawn.mean() - truth.mean()) < 4 * truth.std() / sqrt(n)
        assert abs(drawn.std() / truth.std() - 1) < 4 / sqrt(2 * n)


def test_gaussian_beyond_the_range_is_clamped_to_its_ends() -> None:
    toy = dataset(bell(50, (250.0,), (30.0,)))
    values = toy.test.images.double()
    images = outliers("gaussian", toy, seed=1).images
    white = norm.sf((254.5 - values.mean()) / values.std())
    n = images.numel()
    assert abs(float((images == 255).double().mean()) - white) < 4 * sqrt(white * (1 - white) / n)


def test_made_sets_say_how() -> None:
    toy = dataset(noise(4, 1, 8, 8))
    assert "0..255" in outliers("uniform", toy, 1).about
    assert "mean and std" in outliers("gaussian", toy, 1).about


def test_images_of_the_models_own_shape_stay_as_they_are() -> None:
    images = noise(3, 3, 8, 8)
    found = matched(images, (3, 8, 8))
    assert torch.equal(found.images, images)
    assert found.about == "8 x 8 x 3 as they are"


def test_grey_becomes_three_equal_channels() -> None:
    images = noise(3, 1, 8, 8)
    found = matched(images, (3, 8, 8))
    assert found.images.shape == (3, 3, 8, 8)
    assert all(torch.equal(found.images[:, k], images[:, 0]) for k in range(3))
    assert found.about == "8 x 8 x 1 as they are, grey repeated to RGB"


def test_colour_becomes_the_grey_that_pillow_makes_of_it() -> None:
    images = noise(3, 3, 8, 8)
    found = matched(images, (1, 8, 8))
    assert found.images.shape == (3, 1, 8, 8)
    for image, grey in zip(images, found.images, strict=True):
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(grey[0].numpy().astype(int) - expected).max() <= 1
    assert found.about == "8 x 8 x 3 as they are, grey by luma"


@pytest.mark.parametrize("value", [0, 7, 128, 255])
def test_grey_in_colour_is_the_same_grey(value: int) -> None:
    images = torch.full((2, 3, 8, 8), value, dtype=torch.uint8)
    assert greys(matched(images, (1, 8, 8)).images) == [value, value]


@pytest.mark.parametrize("sides", [(32, 8), (28, 12), (8, 20), (9, 8)])
def test_sizes_are_brought_together_as_pillow_does_it(sides: tuple[int, int]) -> None:
    before, after = sides
    images = noise(4, 1, before, before)
    found = matched(images, (1, after, after))
    for image, resized in zip(images[:, 0], found.images[:, 0], strict=True):
        expected = np.asarray(Image.fromarray(image.numpy()).resize((after, after), Image.Resampling.BILINEAR))
        assert np.abs(resized.numpy().astype(int) - expected).max() <= 1
    assert found.about == f"{before} x {before} x 1 as they are, resized to {after} x {after}"


def test_thousands_of_images_keep_their_order_and_their_grey() -> None:
    shades = torch.arange(2100) % 256
    images = shades.byte()[:, None, None, None].expand(-1, 3, 16, 16)
    found = matched(images, (1, 8, 8))
    assert greys(found.images) == shades.tolist()
    assert found.about == "16 x 16 x 3 as they are, grey by luma, resized to 8 x 8"


def test_a_named_dataset_is_its_test_images_brought_to_the_models_shape() -> None:
    found = outliers("digits", dataset(noise(4, 3, 16, 16)), seed=1)
    assert torch.equal(found.images, matched(Digits().load().test.images, (3, 16, 16)).images)
    assert found.images.shape == (360, 3, 16, 16)


def test_an_archive_is_its_test_images_whatever_its_classes(tmp_path: Path) -> None:
    images = noise(20, 8, 8).numpy()
    np.savez(
        tmp_path / "x.npz",
        train_images=images,
        train_labels=np.zeros(20, int),
        test_images=images[:5],
        test_labels=np.zeros(5, int),
    )
    found = outliers(f"npz:{tmp_path / 'x.npz'}", dataset(noise(4, 1, 8, 8)), seed=1)
    assert np.array_equal(found.images[:, 0].numpy(), images[:5])


@pytest.mark.parametrize("layout", ["{}.png", "a/{}.png", "test/{}.png", "test/a/{}.png"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_needs_no_classes_and_its_test_folder_goes_first(layout: str, zipped: bool, tmp_path: Path) -> None:
    for shade in (3, 1, 2):
        paint(tmp_path / "faces" / layout.format(shade), shade)
    if layout.startswith("test"):
        paint(tmp_path / "faces" / "train" / "a" / "9.png", 9)
    path = Path(shutil.make_archive(str(tmp_path / "faces"), "zip", tmp_path / "faces")) if zipped else tmp_path / "faces"
    for channels in (1, 3):
        found = outliers(f"folder:{path}", dataset(noise(4, channels, 8, 8)), seed=1)
        assert found.images.shape == (3, channels, 8, 8)
        assert greys(found.images) == [1, 2, 3]


@pytest.mark.parametrize(("channels", "kind"), [(1, "grey"), (3, "RGB")])
def test_a_folder_says_how_it_was_fitted(channels: Literal[1, 3], kind: str, tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 1)
    about = outliers(f"folder:{tmp_path}", dataset(noise(4, channels, 16, 16)), seed=1).about
    assert about == f"shorter side resized to 16, centre crop, {kind}"


CELEBA = Path("data/celeba/img_align_celeba")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_celeba_is_read_where_it_lies_and_never_downloaded() -> None:
    with pytest.raises(DataError, match=r"^celeba is not in data/celeba, and gmmc never downloads it$") as error:
        outliers("celeba", dataset(noise(4, 3, 8, 8)), seed=1)
    assert error.value.exit_code == 3
    assert "img_align_celeba.zip" in error.value.hint


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("zipped", [False, True])
def test_celeba_is_its_last_images_the_test_partition(zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for shade in range(1, 8):
        paint(CELEBA / f"{shade:06}.png", shade, (178 // 8, 218 // 8))
    if zipped:
        shutil.make_archive(str(CELEBA), "zip", CELEBA.parent, CELEBA.name)
        shutil.rmtree(CELEBA)
    toy = dataset(noise(4, 3, 8, 8))
    assert greys(outliers("celeba", toy, seed=1).images) == [1, 2, 3, 4, 5, 6, 7]
    monkeypatch.setattr("gmmcli.data.outliers.CELEBA_TEST", 3)
    found = outliers("celeba", toy, seed=1)
    assert greys(found.images) == [5, 6, 7]
    assert found.images.shape == (3, 3, 8, 8)


@pytest.mark.parametrize("name", ["celeb", "svnh", "folder:", "npz", "noise", "interp:x", ""])
def test_an_unknown_set_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(RecipeError, match=f"^no set of images {name!r}$") as error:
        outliers(name, dataset(noise(4, 1, 8, 8)), seed=1)
    assert error.value.exit_code == 2
    for known in (*MADE, "celeba", "digits", "mnist", "cifar10", "cifar100", "svhn", "folder:PATH", "npz:PATH"):
        assert known in error.value.hint


@pytest.mark.parametrize("name", ["folder:gone", "npz:gone.npz"])
@pytest.mark.usefixtures("elsewhere")
def test_a_set_that_is_not_there_names_its_place(name: str) -> None:
    with pytest.raises(DataError, match="gone"):
        outliers(name, dataset(noise(4, 1, 8, 8)), seed=1)


@pytest.mark.parametrize(
    ("channels", "kind", "real"),
    [
        (3, "npz", ["svhn", "cifar10", "cifar100", "celeba"]),
        (3, "cifar10", ["svhn", "cifar100", "celeba"]),
        (3, "svhn", ["cifar10", "cifar100", "celeba"]),
        (1, "folder", ["mnist", "digits"]),
        (1, "digits", ["mnist"]),
        (1, "mnist", ["digits"]),
    ],
)
def test_by_default_it_is_made_sets_and_real_ones_of_as_many_channels_but_not_itself(channels: int, kind: str, real: list[str]) -> None:
    assert usual_sets(dataset(noise(4, channels, 8, 8)), kind) == [*MADE, *real]


@pytest.mark.usefixtures("elsewhere")
def test_the_defaults_are_those_on_disk_and_one_line_says_how_to_get_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    colour, grey = (dataset(noise(4, channels, 8, 8)) for channels in (3, 1))
    assert default_sets(colour, "npz") == [*MADE]
    assert left_out(colour, "npz") == (
        "not compared with svhn, cifar10, cifar100, celeba (not on disk): `gmmc data download svhn` (246 MB), "
        "`gmmc data download cifar10` (170 MB), `gmmc data download cifar100` (169 MB), celeba by hand, into data/celeba"
    )
    assert default_sets(grey, "npz") == [*MADE, "digits"]
    assert left_out(grey, "npz") == "not compared with mnist (not on disk): `gmmc data download mnist` (12 MB)"
    assert left_out(grey, "mnist") == ""
    Path("data/celeba/img_align_celeba").mkdir(parents=True)
    for name in ("train_32x32.mat", "test_32x32.mat", "cifar-10-binary.tar.gz"):
        Path("data", name).touch()
    assert default_sets(colour, "npz") == [*MADE, "svhn", "cifar10", "celeba"]
    Path("data/train_32x32.mat").unlink()
    assert default_sets(colour, "npz") == [*MADE, "cifar10", "celeba"]


def test_streams_of_different_sets_are_not_the_same_noise() -> None:
    toy = dataset(bell(40, (128.0,), (40.0,)))
    for one, other in pairwise(outliers(name, toy, seed=1).images[:20].flatten().double() for name in MADE):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 4 / sqrt(one.numel())
