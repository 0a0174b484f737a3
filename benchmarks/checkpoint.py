"""Time how checkpoints are saved and loaded: ``python benchmarks/checkpoint.py``.

A WRN-16-2 on 32 x 32 images with a replay buffer of 12 MB, 120 MB and 1.2 GB, saved in three ways that take turns: plainly (the
library's ``save_file``, then each file read again for its sha256), at once, and in the background while training steps are taken. The
pause is what training waits for; the longest step beside the writer shows what it costs besides. Memory is what the process holds at
most above what it held before. Loading maps the buffer and reads an image: the first load verifies the file's sha256.
"""

import argparse
import math
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from statistics import median

import safetensors.torch
import torch

from gmmcli.checkpoint import _known_digest as verified
from gmmcli.data.dataset import Dataset, Split
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.storage import sync
from gmmcli.train.guard import GuardedStep
from gmmcli.train.saver import Saver
from gmmcli.train.setup import Setup
from gmmcli.train.state import TrainState
from gmmcli.train.step import training_step

CLASSES, SHAPE = 10, (3, 32, 32)
MEGABYTES = (12, 120, 1200)
BYTES = {"float32": 4, "float16": 2, "uint8": 1}
"""Of a value, by the dtype of the buffer."""
RECIPE = """
name = "checkpoint"
[data]
source = {{ kind = "digits" }}
batch_size = 16
[model]
backbone = {{ kind = "wide-resnet", depth = 16, width = 2, stem_stride = 2 }}
[chains]
buffer_size = {size}
dtype = "{dtype}"
sampler = {{ kind = "sgld", n_steps = 1 }}
[[stages]]
epochs = 1000
objective = {{ kind = "contrastive-divergence" }}
[log]
keep = 1
"""


def noise() -> Dataset:
    """Random images."""
    generator = stream("cpu", 1, "benchmark")
    images = torch.randint(256, (64, *SHAPE), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(64) % CLASSES)
    return Dataset("noise", tuple("0123456789"), split, split, split)


def plainly(state: TrainState, run: Run, setup: Setup) -> None:
    """Save as a program would that thinks of safety alone, then remove the save before."""
    snapshot = state.snapshot(run, setup.dataset)
    assert snapshot.buffer is not None and state.chains is not None
    snapshot.buffer.close()
    folder = run.path / f"plain-{state.step}"
    before = list(run.path.glob("plain-*"))
    folder.mkdir()
    for name, part in snapshot.parts.items():
        tensors = {"images": state.chains.buffer.images} if name == "buffer" else dict(part.tensors)
        path = folder / f"{name}.safetensors"
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        with path.open("rb") as file:
            file_digest(file, "sha256").hexdigest()
        sync(path)
    sync(folder)
    for old in before:
        shutil.rmtree(old)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def peak(found: list[float]) -> Iterator[None]:
    """Note by how many MB the process grows above what it holds before the block (Linux)."""

    def held(key: str) -> int:
        return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)))

    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    yield
    found.append((held("VmHWM") - before) / 1e3)


def measure(megabytes: int, dtype: str, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return the values of each quantity, one a round; the round before the first is left out."""
    size = round(megabytes * 1e6 / (BYTES[dtype] * math.prod(SHAPE)) / CLASSES) * CLASSES
    setup = Setup.prepare(Recipe.loads(RECIPE.format(size=size, dtype=dtype)), noise())
    run = Run.create(setup.recipe, folder, [])
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, 1e30, setup.device)
    found: dict[str, list[float]] = defaultdict(list)

    def step() -> float:
        return seconds(lambda: training_step(setup, state, update))

    def first_image() -> float:
        return float(run.buffer().images[0, 0].float().mean())

    for turn in range(rounds + 1):
        found["a step"].append(median(step() for _ in range(5)))
        found["plainly"].append(seconds(lambda: plainly(state, run, setup)))
        step()
        with peak(found["at once: memory"]):
            found["at once"].append(seconds(lambda: state.save(run, setup.dataset)))
        step()
        with peak(found["background: memory"]), Saver(run, setup.dataset) as saver:
            started, saved, beside = time.perf_counter(), state.step, []
            found["background: pause"].append(seconds(lambda: saver.begin(state)))
            while run.checkpoint().step != saved:
                beside.append(step())
            found["background: written"].append(time.perf_counter() - started)
        found["background: longest step"].append(max(beside, default=0.0))
        verified.cache_clear()
        found["first load"].append(seconds(first_image))
        found["second load"].append(seconds(first_image))
        if not turn:
            found.clear()
    return found


def main() -> None:
    """Print a table in Markdown: seconds and MB, medians over the rounds, the largest pause in brackets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=BYTES, default="float32", help="of the buffer")
    parser.add_argument("--megabytes", type=int, nargs="+", default=MEGABYTES, help="sizes of the buffer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # on the disk, not in a /tmp of memory
        tables = {size: measure(size, arguments.dtype, arguments.rounds, Path(folder)) for size in arguments.megabytes}
    print(f"| {arguments.dtype} buffer |", " | ".join(f"{size:,} MB" for size in tables), "|")
    print("|---" * (len(tables) + 1) + "|")
    for key in next(iter(tables.values())):
        cells = []
        for table in tables.values():
            values = table[key]
            cells.append(f"{median(values):.0f} MB" if key.endswith("memory") else f"{median(values):.3f} s (at most {max(values):.3f})")
        print(f"| {key} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
