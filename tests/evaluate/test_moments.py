import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gmmcli.errors import DataError
from gmmcli.evaluate.moments import read_moments, write_moments
from gmmcli.metrics.frechet import Moments
from gmmcli.vision import torchvision


def random_moments(seed: int, dim: int) -> Moments:
    factor = torch.randn(dim, 2 * dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Moments(factor.mean(1), factor @ factor.T / dim)


def test_moments_come_back_as_they_were_saved(tmp_path: Path) -> None:
    path, moments = tmp_path / "new" / "folder" / "stats.npz", random_moments(0, 4)
    write_moments(moments, path)
    loaded = read_moments(path, 4)
    assert torch.equal(loaded.mean, moments.mean)
    assert torch.equal(loaded.covariance, moments.covariance)


@pytest.mark.parametrize("name", ["stats.npz", "stats"])
def test_the_file_has_the_name_that_was_asked_for(name: str, tmp_path: Path) -> None:
    write_moments(random_moments(0, 4), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_pytorch_fid_reads_what_is_saved(tmp_path: Path) -> None:
    torchvision("models")
    from pytorch_fid.fid_score import compute_statistics_of_path

    moments = random_moments(0, 4)
    write_moments(moments, tmp_path / "stats.npz")
    mean, covariance = compute_statistics_of_path(str(tmp_path / "stats.npz"), model=None, batch_size=1, dims=4, device="cpu")
    assert np.array_equal(mean, moments.mean)
    assert np.array_equal(covariance, moments.covariance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_pytorch_fid_saves_is_read(dtype: type, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "stats.npz", mu=np.arange(3, dtype=dtype), sigma=np.diag([1, 2, 3]).astype(dtype))
    moments = read_moments(tmp_path / "stats.npz", 3)
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    assert moments.mean.tolist() == [0, 1, 2]
    assert moments.covariance.diagonal().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("mean", "covariance"),
    [((4,), (4, 4)), ((3, 1), (3, 3)), ((3,), (3,)), ((3,), (3, 4)), ((3,), (2, 2))],
    ids=str,
)
def test_statistics_of_another_space_are_refused(mean: tuple[int, ...], covariance: tuple[int, ...], tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "stats.npz", mu=np.zeros(mean), sigma=np.zeros(covariance))
    with pytest.raises(DataError, match=r"stats\.npz has statistics of .* features, this space has 3"):
        read_moments(tmp_path / "stats.npz", 3)


def good(path: Path) -> bytes:
    write_moments(Moments(torch.zeros(3), torch.eye(3)), path)
    return path.read_bytes()


def garbled(path: Path) -> None:
    """A compressed stream that begins with a block of the type that there is not."""
    content = bytearray(good(path))
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[0].header_offset
    lengths = int.from_bytes(content[start + 26 : start + 28], "little") + int.from_bytes(content[start + 28 : start + 30], "little")
    content[start + 30 + lengths] = 0xFF
    path.write_bytes(content)


def bare(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.eye(3))


BROKEN: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("mu, sigma"),
    "cut short": lambda path: path.write_bytes(good(path)[:-30]),
    "garbled": garbled,
    "a bare array": bare,
    "other arrays": lambda path: np.savez(path, images=np.zeros(3)),
    "no covariance": lambda path: np.savez(path, mu=np.zeros(3)),
    "words": lambda path: np.savez(path, mu=np.array(["a", "b", "c"]), sigma=np.eye(3)),
    "a stranger's": lambda path: path.symlink_to("/dev/zero"),
    "objects": lambda path: np.savez(path, mu=np.array([None] * 3), sigma=np.eye(3)),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_file_that_holds_no_statistics_is_a_data_error(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    spoil(path)
    with pytest.raises(DataError, match=r"stats\.npz cannot be read as pytorch-fid statistics") as caught:
        read_moments(path, 3)
    assert "mu and sigma" in caught.value.hint
