"""How long a command takes to begin: ``python benchmarks/startup.py``.

`gmmc --help`, as seen on a clock and in processor time, which other jobs lengthen less; and `gmmc train digits_gen` until the first step is
in its log.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from table import Figure, table

GMMC = [sys.executable, "-m", "gmmcli"]
PATIENCE = 120.0


def help_seconds() -> tuple[float, float]:
    """On the clock, and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*GMMC, "--help"], stdout=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step_seconds() -> float:
    """From the start of the command to its first line in metrics.jsonl."""
    with TemporaryDirectory() as folder:
        words = ["train", "digits_gen", "--set", "log.every=1", "--set", "compute.device=cpu", "--quiet", "--runs-dir", folder]
        started = time.perf_counter()
        training = subprocess.Popen([*GMMC, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while not any(path.stat().st_size for path in Path(folder).glob("*/metrics.jsonl")):
                if training.poll() is not None or time.perf_counter() - started > PATIENCE:
                    raise RuntimeError(f"no step of digits_gen within {PATIENCE:.0f} s, or the training has ended")
                time.sleep(0.005)
            return time.perf_counter() - started
        finally:
            training.kill()
            training.communicate()


def measure(rounds: int = 5) -> list[Figure]:
    """All of it, after one round that fills the caches."""
    helps = [help_seconds() for _ in range(rounds + 1)][1:]
    clock, processor = (tuple(part) for part in zip(*helps, strict=True))
    firsts = tuple(first_step_seconds() for _ in range(3))
    return [
        Figure("gmmc --help", "s", clock),
        Figure("gmmc --help, processor", "s", processor),
        Figure("first step of digits_gen", "s", firsts),
    ]


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table({"startup": measure()}))


if __name__ == "__main__":
    main()
