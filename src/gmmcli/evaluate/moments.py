"""Files of feature statistics, in the form of pytorch-fid: ``mu`` and ``sigma`` in an .npz."""

from pathlib import Path

import torch

from gmmcli.data.arrays import Arrays
from gmmcli.data.reading import reading
from gmmcli.errors import DataError
from gmmcli.metrics.frechet import Moments
from gmmcli.storage import write_arrays


def write_moments(moments: Moments, path: Path) -> list[Path]:
    """Write statistics that pytorch-fid reads; return the path, as a list."""
    write_arrays(path, mu=moments.mean.numpy(), sigma=moments.covariance.numpy())
    return [path]


def read_moments(path: Path, dim: int) -> Moments:
    """Read pytorch-fid's statistics; DataError where they are none, or of another feature space."""
    with reading(f"{path} cannot be read as pytorch-fid statistics", "it should be an .npz with mu and sigma"), Arrays(path) as arrays:
        mean, covariance = (torch.from_numpy(arrays[key]).double() for key in ("mu", "sigma"))
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise DataError(f"{path} has statistics of {tuple(mean.shape)} features, this space has {dim}", "make them in the same space")
    return Moments(mean, covariance)
