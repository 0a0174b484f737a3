"""What children of the tests do: read with less memory than the images take, or die half way through a cache."""

import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from gmmcli.core.starts import ClassGaussian
from gmmcli.data import mapped
from gmmcli.data.cache import cached
from gmmcli.data.digits import Digits
from gmmcli.data.loader import Data
from gmmcli.data.sources import Source
from gmmcli.rng import stream

CPU = torch.device("cpu")


def read_within(allowed: int, kept: int, sources: list[Source], cache: Path) -> None:
    """Read sources while this process may take so many bytes more than now: with ``kept`` bytes of images in memory, then with all."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    threading.stack_size(2**20)  # stacks count, files that are mapped to be read do not
    mapped.IN_MEMORY = kept
    read(Digits())  # what imports take
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resource.setrlimit(resource.RLIMIT_DATA, (int(status["VmData"].split()[0]) * 1024 + allowed,) * 2)
    for source in sources:
        read(source)
    mapped.IN_MEMORY = 2**40
    for source in sources:
        with pytest.raises((MemoryError, RuntimeError), match="llocate"):
            read(source)


def read(source: Source) -> None:
    """Read all that a training reads."""
    dataset = source.load()
    loader = Data(batch_size=4, crop_padding=2).build(dataset.train, CPU, 1)
    for step in range(5):
        assert loader.batch(step, stream("cpu", step), clean=True).images.isfinite().all()
    ClassGaussian(rank=1).fit(*loader.split.some(1).batch(), dataset.n_classes, 1)
    for split in (loader.split, dataset.validation.to(CPU), dataset.test.subset(7, 1)):
        assert sum(map(len, split.chunks(8))) == len(split)


def die_writing(cache: Path, **about: Any) -> None:
    """Kill this process in the middle of a file for the cache."""
    os.environ["XDG_CACHE_HOME"] = str(cache)

    def write(file: BinaryIO) -> None:
        np.save(file, np.zeros((2, 8, 8, 1), np.uint8))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    cached(**about, write=write)
