"""Read a folder and .npz files of images with less memory than they take: ``python read_within.py FOLDER NPZ...``.

With 2 MiB of images in memory that must succeed, and with all of them fail.
"""

import resource
import sys
import threading
from pathlib import Path

import torch

from gmmcli.core.starts import ClassGaussian
from gmmcli.data import mapped
from gmmcli.data.digits import Digits
from gmmcli.data.folder import Folder
from gmmcli.data.loader import Data
from gmmcli.data.npz import Npz
from gmmcli.data.sources import Source
from gmmcli.errors import DataError
from gmmcli.rng import stream

CPU = torch.device("cpu")
ALLOWED, KEPT = 140 * 2**20, 2 * 2**20


def read(source: Source) -> None:
    """Read all that a training reads."""
    dataset = source.load()
    loader = Data(batch_size=4, crop_padding=2).build(dataset.train, CPU, 1)
    for step in range(5):
        assert loader.batch(step, stream("cpu", step), clean=True).images.isfinite().all()
    ClassGaussian(rank=1).fit(*loader.split.some(1).batch(), dataset.n_classes, 1)
    for split in (loader.split, dataset.validation.to(CPU), dataset.test.subset(7, 1)):
        assert sum(map(len, split.chunks(8))) == len(split)


def fits(source: Source) -> bool:
    """Whether memory suffices."""
    try:
        read(source)
    except (MemoryError, RuntimeError, DataError) as error:
        assert "llocate" in str(error), error
        return False
    return True


if __name__ == "__main__":
    folder, *archives = sys.argv[1:]
    sources: list[Source] = [*(Npz(path=path) for path in archives), Folder(path=folder, size=0)]
    threading.stack_size(2**20)  # stacks count, files that are mapped to be read do not
    mapped.IN_MEMORY = KEPT
    read(Digits())  # what imports take
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resource.setrlimit(resource.RLIMIT_DATA, (int(status["VmData"].split()[0]) * 1024 + ALLOWED,) * 2)
    mapped_fit = [fits(source) for source in sources]
    mapped.IN_MEMORY = 2**40
    print(mapped_fit, [fits(source) for source in sources])
