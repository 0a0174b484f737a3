"""Time reading of images: ``python benchmarks/data.py``.

Batches of 64 x 64 colour images at random places: from memory, from a memory map whose file is in the page cache, and from one that was
dropped from it; as bytes, and through the loader with crops, mirrors and noise. The ways take turns; medians over the rounds, with the
ratio to memory. Then the time to decode a folder of JPEGs into the cache, and to open it again.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from gmmcli.data import mapped
from gmmcli.data.dataset import Split
from gmmcli.data.folder import Folder
from gmmcli.data.loader import Data, Loader
from gmmcli.data.mapped import Mapped
from gmmcli.rng import stream

SIZE, BATCH, BATCHES = 64, 256, 20
CPU = torch.device("cpu")


def written(path: Path, n: int) -> None:
    """Write so many images."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, SIZE, SIZE, 3))
    for part in np.split(images, range(1000, n, 1000)):
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    images.flush()


def opened(path: Path) -> Split:
    """Map the images."""
    images = Mapped.whole(np.lib.format.open_memmap(path, mode="r"))
    return Split(images, torch.zeros(len(images), dtype=torch.long))


def dropped(path: Path) -> Split:
    """Map the images after their file was dropped from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return opened(path)


def loader(split: Split) -> Loader:
    """Batches as a training reads them."""
    return Data(batch_size=BATCH, crop_padding=8, flip=True, noise_std=0.02).build(split, CPU, 1)


def seconds(run: Callable[..., object], *arguments: object) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - started


def read(split: Split, turn: int) -> None:
    """Read batches of bytes."""
    for places in torch.randint(len(split), (BATCHES, BATCH), generator=stream("cpu", turn)):
        split.batch(places)


def train(batches: Loader, turn: int) -> None:
    """Read batches of a training."""
    for step in range(turn * BATCHES, (turn + 1) * BATCHES):
        batches.batch(step, stream("cpu", step))


def time_batches(path: Path, rounds: int) -> None:
    """Print images a second."""
    memory = Split(*opened(path).batch())
    ways = {"memory": lambda: memory, "memory map": lambda: opened(path), "memory map, not in the page cache": lambda: dropped(path)}
    for title, prepare, run in (("bytes", lambda split: split, read), ("training batches", loader, train)):
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, split in ways.items():
                source = prepare(split())
                duration = seconds(run, source, turn)
                if turn:
                    times[way].append(duration)
                del source
        for way, durations in times.items():
            ratio = median(own / base for own, base in zip(durations, times["memory"], strict=True))
            print(f"{title:16} {way:34} {BATCHES * BATCH / median(durations):>9,.0f} images/s  time {ratio:.2f} of memory's")


def time_cache(root: Path, n: int) -> None:
    """Print images a second of decoding, and of opening what was decoded."""
    rng = np.random.default_rng(0)
    for k in range(10):
        (root / "pets" / str(k)).mkdir(parents=True)
    for i in range(n):
        smooth = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        smooth.save(root / "pets" / str(i % 10) / f"{i}.jpg", quality=90)
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    mapped.IN_MEMORY = 2**20
    source = Folder(path=str(root / "pets"), size=SIZE)
    for title in ("decoded into the cache", "opened from the cache"):
        print(f"{n:,} JPEGs of 500 x 375, {title:23} {n / seconds(source.load):>9,.0f} images/s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="in the file, 12,288 bytes each")
    parser.add_argument("--jpegs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--folder", default=None, help="where to write the files: on the disk to be measured; default: the temporary folder"
    )
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "images.npy"
        written(path, options.images)
        time_batches(path, options.rounds)
        time_cache(Path(folder), options.jpegs)


if __name__ == "__main__":
    main()
