"""Train for long, and watch memory, files and chains: ``python benchmarks/long.py digits_gen --steps 50000 --out FOLDER``.

`gmmc train` runs in a process of its own, whose resident memory and open files are read along the way (Linux). Called again with the same
folder, it resumes the run that is there, or tells and draws what came of one that has ended. Ctrl-C or SIGTERM saves the run and stops.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

from curves import SHOWN, plt
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.storage import append_json, read_json_lines
from gmmcli.train.setup import Setup
from memory import resident
from table import Figure, table

SCHEDULE = ("log.every=100", "log.preview_every=0", "log.validate_every=1000", "log.checkpoint_every=1000")
Lines = Sequence[dict[str, Any]]


def run_of(folder: Path) -> Run | None:
    """The run of a folder, where one was begun."""
    return next(map(Run, (folder / "runs").glob("*")), None)


def train(recipe: str, steps: int, overrides: Sequence[str], folder: Path, every: float) -> int:
    """Begin or resume; read the process's memory and files every so many seconds; return its exit code."""
    if run := run_of(folder):
        words = ["--resume", "--run", str(run.path)]
    else:
        setup = Setup.prepare(Recipe.load(recipe, overrides))
        sets = [*SCHEDULE, *overrides, f"stages.0.epochs={ceil(steps / setup.loader.steps_per_epoch)}"]
        words = [recipe, *(word for one in sets for word in ("--set", one))]
    with subprocess.Popen([sys.executable, "-m", "gmmcli", "train", *words, "--runs-dir", str(folder / "runs"), "--quiet"]) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a terminal sends Ctrl-C to both
                process.wait(every)
            run = run_of(folder)
            logged = [line["step"] for line in run.metrics() if "loss" in line] if run else []
            with suppress(OSError):  # the process has ended
                files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
                reading = {"process": process.pid, "resident": resident(process.pid), "files": files}
                if logged:
                    append_json(folder / "readings.jsonl", {"step": logged[-1], **reading})
        return process.returncode


def figures(lines: Lines, readings: Lines) -> list[Figure]:
    """What came of it; memory grows from a tenth of each process's readings, when all that it keeps exists, to its last."""
    steps = [line for line in lines if "loss" in line]
    events = [line["event"] for line in lines if "event" in line]
    generative = [line for line in steps if line.get("energy_data") and line.get("energy_model") is not None]
    training = [one for one in readings if one["step"] < steps[-1]["step"]]  # an evaluation follows
    by_process = [[one["resident"] for one in group] for _, group in groupby(training, lambda one: one["process"])]
    growth = [memory[-1] - memory[len(memory) // 10] for memory in by_process if len(memory) >= 10]
    found = {
        ("steps", ""): [steps[-1]["step"]],
        ("losses that are not finite", ""): [sum(line["loss"] is None for line in steps)],
        ("divergences and rollbacks", ""): [sum(event in ("diverged", "rollback") for event in events)],
        ("warnings of chains", ""): [events.count("chains")],
        ("chains that stand still", ""): [line["still"] for line in generative],
        ("energy of samples / of real images", "x"): [line["energy_model"] / line["energy_data"] for line in generative],
        ("validation accuracy", ""): [line["validation_accuracy"] for line in lines if "validation_accuracy" in line],
        ("resident", "MiB"): [one["resident"] for one in training],
        ("growth of a process", "MiB"): growth,
        ("open files", ""): [one["files"] for one in training],
    }
    return [Figure(name, unit, tuple(values)) for (name, unit), values in found.items() if values]


def draw(lines: Lines, readings: Lines, path: Path) -> None:
    """Energies, memory and open files over the steps."""
    figure, (energies, memory) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    for key, label in SHOWN.items():
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        energies.plot(*zip(*points, strict=True), label=label, linewidth=0.6)
    energies.set(ylabel="mean energy", yscale="log")
    energies.legend(fontsize=8)
    steps = [one["step"] for one in readings]
    memory.plot(steps, [one["resident"] for one in readings], linewidth=1)
    memory.set(xlabel="training step", ylabel="resident memory [MiB]", ylim=(0, None))
    files = memory.twinx()
    files.plot(steps, [one["files"] for one in readings], color="tab:red", linewidth=1)
    files.set_ylabel("open files", color="tab:red")
    files.set_ylim(0, None)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, print and draw; with the exit code of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="of gmmc train")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two readings")
    parser.add_argument("--out", type=Path, required=True, help="a folder for this run alone")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    code = train(asked.recipe, asked.steps, asked.overrides, asked.out, asked.every)
    run, readings = run_of(asked.out), read_json_lines(asked.out / "readings.jsonl")
    if run and readings:
        print(table({asked.recipe: figures(run.metrics(), readings)}))
        draw(run.metrics(), readings, asked.out / "curve.png")
    sys.exit(code)


if __name__ == "__main__":
    main()
