"""Provoke divergence, and count which trainings end: ``python benchmarks/divergence.py --out trainings.jsonl``.

Short trainings of `digits_gen` at every combination of the factors below, each over several seeds. All roll back where they diverge: one
that had to would not have ended with ``guard.on_divergence = "stop"``, for until then the two are the same. Called again, it goes on
after the trainings that the file already has.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gmmcli.checkpoint import Checkpoint
from gmmcli.errors import DivergedError
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.storage import append_json, read_json_lines
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from table import markdown

FACTORS: dict[str, tuple[str, Sequence[Any]]] = {
    "learning rate": ("optim.learning_rate", (3e-3, 1e-2, 3e-2)),
    "step size": ("chains.sampler.step_size", (0.3, 3.0)),
    "beta": ("stages.0.objective.beta", (0.5, 4.0)),
    "sampler": ("chains.sampler.kind", ("fixed-length", "sgld")),
    "margin": ("stages.0.objective.margin", (0.0, 2.0)),
}
SHORT = ("stages.0.ramp_epochs=1", "optim.warmup_steps=10", "compute.precision=fp32", 'guard.on_divergence="rollback"')
LOG = ("log.every=1", "log.preview_every=0", "log.validate_every=0", "log.checkpoint_every=10", "log.keep=1000")
Row = Mapping[str, Any]


def settings(seeds: int) -> Iterator[dict[str, Any]]:
    """Every combination, seed by seed."""
    for seed, *values in product(range(1, seeds + 1), *(values for _, values in FACTORS.values())):
        yield {**dict(zip(FACTORS, values, strict=True)), "seed": seed}


def provoked(setting: Row, epochs: int, *overrides: str) -> dict[str, Any]:
    """Train, and return the setting with what came of it."""
    values = [f"{key}={setting[factor]}" for factor, (key, _) in FACTORS.items()]
    recipe = Recipe.load("digits_gen", [*SHORT, *LOG, *values, f"stages.0.epochs={epochs}", f"seed={setting['seed']}", *overrides])
    with TemporaryDirectory() as folder:
        setup, run = Setup.prepare(recipe), Run.create(recipe, Path(folder), [])
        with suppress(DivergedError):
            train(setup, run, quiet=True)
        events = [line["event"] for line in run.metrics() if "event" in line]
        return {
            **setting,
            **came_of(events),
            "checkpoints": len(run.checkpoints),
            "not finite": sum(not finite(checkpoint) for checkpoint in run.checkpoints),
        }


def came_of(events: Sequence[str]) -> dict[str, Any]:
    """What the events of a log, in their order, say of a training."""
    breaks = [i for i, event in enumerate(events) if event in ("rollback", "diverged")]
    return {
        "diverged": bool(breaks),
        "rollbacks": events.count("rollback"),
        "finished": "diverged" not in events,
        "warned": bool(breaks) and breaks[0] > 0,
    }


def finite(checkpoint: Checkpoint) -> bool:
    """Whether all that a checkpoint holds is finite."""
    parts = [part for name in ("model", "weights", "optimizer", "buffer", "starts") for part in checkpoint.shards(name)]
    return all(bool(torch.isfinite(tensor).all()) for part in parts for tensor in checkpoint.tensors(part).values())


def report(rows: Sequence[Row]) -> str:
    """Shares that finish, by every factor's values, without a margin and with one; then warnings and checkpoints."""
    lines = [["all", *_shares(rows)]]
    for factor, (_, values) in FACTORS.items():
        if factor != "margin":
            lines += [[f"{factor} {value}", *_shares([row for row in rows if row[factor] == value])] for value in values]
    diverged = [row for row in rows if row["diverged"]]
    head = ["", "no margin: stop", "no margin: rollback", "margin: stop", "margin: rollback"]
    return (
        f"{markdown(head, lines)}\n\n{len(rows):,} trainings, {len(diverged):,} diverged, {sum(row['warned'] for row in diverged):,} of "
        f"these after a warning; {sum(row['not finite'] for row in rows):,} of {sum(row['checkpoints'] for row in rows):,} checkpoints "
        "hold a value that is not finite."
    )


def _shares(rows: Sequence[Row]) -> list[str]:
    cells = []
    for with_margin in (False, True):
        some = [row for row in rows if (row["margin"] > 0) == with_margin]
        cells += [f"{n} of {len(some)}" for n in (sum(not row["diverged"] for row in some), sum(row["finished"] for row in some))]
    return cells


def main() -> None:
    """Train what the file does not have yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6, help="of a training; one has 19 steps")
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each training")
    asked = parser.parse_args()
    done = read_json_lines(asked.out)
    for setting in settings(asked.seeds):
        if not any(setting.items() <= row.items() for row in done):
            done.append(provoked(setting, asked.epochs))
            append_json(asked.out, done[-1])
    print(report(done))


if __name__ == "__main__":
    main()
