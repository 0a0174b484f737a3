"""Measure everything and keep it: ``python benchmarks/bench.py [--only NAME ...] [--long]``; `make bench` is this.

Each part is a function of its own, of a script that also runs by itself. The figures of a run go to benchmarks/results/ as JSON and as
Markdown, and a row of the most telling ones to the leaderboard there.
"""

import argparse
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from table import RESULTS, Figure, Parts, leaderboard, revision, table, write

HEAD = """# Benchmark results

A row for every run of `make bench`, the newest first; the files beside have every figure with its spread, and
[performance.md](../../docs/performance.md#the-benchmark-table) says what each means. Only ratios of one run are comparable between
machines, and figures of a loaded machine (load above its cores) are worth little.

"""


def checkpoint() -> list[Figure]:
    """What saving a buffer of 1.2 GB costs, on the disk of the current directory."""
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        found = import_module("checkpoint").measure(1200, "uint8", 2, Path(folder))
    return [Figure(name, "MB" if name.endswith("memory") else "s", tuple(values)) for name, values in found.items()]


def parts(long: bool) -> dict[str, tuple[str, str, dict[str, int]]]:
    """All measurements by name, in order: the script, its function, and what it is called with."""
    return {
        "startup": ("startup", "measure", {}),
        "memory": ("memory", "measure", {"steps": 10_000 if long else 1000}),  # before other parts fill this process
        "step": ("step", "measure", {}),
        "buffer": ("buffer", "measure", {}),
        "checkpoint": ("bench", "checkpoint", {}),
        "evaluation": ("rates", "evaluation", {}),
        "attack": ("rates", "attack", {}),
        "scaling": ("scaling", "measure", {"rounds": 3, "steps": 1, "batch_size": 32}),
    }


def main() -> None:
    """Measure, print and write; exit code 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = parts(long=False)
    parser.add_argument("--only", action="append", choices=list(known), metavar="NAME", help=f"a part: {', '.join(known)}; repeatable")
    parser.add_argument("--long", action="store_true", help="memory over 10,000 steps")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write")
    asked = parser.parse_args()
    commit, load, started = revision(), os.getloadavg()[0], time.perf_counter()
    found: Parts = {}
    failed = []
    for name, (script, function, settings) in parts(asked.long).items():
        if asked.only and name not in asked.only:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = getattr(import_module(script), function)(**settings)
        except Exception as error:  # one part that fails must not cost the others
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        print(table({name: found[name]}), flush=True)
    page = write(found, asked.out, commit, load, time.perf_counter() - started)
    (asked.out / "README.md").write_text(HEAD + leaderboard(asked.out) + "\n", encoding="utf-8")
    print(f"written to {page} and {page.with_suffix('.json').name}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
