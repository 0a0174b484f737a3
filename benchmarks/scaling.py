"""How much faster two processes train than one: ``python benchmarks/scaling.py``.

`torchrun --nproc-per-node N -m gmmcli train` on synthetic 32 x 32 images, WRN-10-2, one thread a process, the same batch in all. N = 1
and 2 take turns; a round's figure is the median of `images_per_sec` in its metrics.jsonl after the first lines.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import synthetic
from table import Figure, ratios, table

EVERY, SKIPPED, TIMEOUT = 2, 3, 180.0
SETTINGS = (
    "stages=[{epochs=2,ramp_epochs=1,freeze_norm=true,objective={kind='contrastive-divergence',margin=2.0}}]",
    "chains.sampler.n_steps=3",
    "chains.buffer_size=1000",
    "compute.device=cpu",
    f"log.every={EVERY}",
    "log.validate_every=0",
)


def images_per_second(recipe: Path, processes: int, folder: Path) -> float:
    """Train once with so many processes."""
    runs = folder / f"runs-{processes}"
    words = [str(recipe), "--quiet", "--runs-dir", str(runs), *(word for setting in SETTINGS for word in ("--set", setting))]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "gmmcli"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    training = subprocess.Popen([*torchrun, "train", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, told = training.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        training.terminate()  # a killed torchrun would leave its processes behind
        training.communicate()
        raise
    if training.returncode:
        raise RuntimeError(f"a training in {processes} processes failed: {told.strip().splitlines()[-1:]}")
    newest = max(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return median([line["images_per_sec"] for line in lines if "images_per_sec" in line][SKIPPED:])


def measure(rounds: int = 3) -> list[Figure]:
    """Images a second with one process and with two, and their ratio."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with TemporaryDirectory() as folder:
        recipe = Path(folder) / "synthetic.toml"
        recipe.write_text(synthetic.recipe(Path(folder), depth=10).dumps())
        for _ in range(rounds):
            for processes, found in rates.items():
                found.append(images_per_second(recipe, processes, Path(folder)))
    single = [Figure(f"{n} process{'es' * (n > 1)}", "images/s", tuple(found)) for n, found in rates.items()]
    return [*single, ratios("2 processes / 1", rates[2], rates[1])]


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table({"scaling": measure()}))


if __name__ == "__main__":
    main()
