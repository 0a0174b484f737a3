"""Strike trainings, resumes and evaluations with faults at every write, and damage every file of a run: ``make faults``.

After each fault the run must be listed, shown and sampled from, and be resumed to the same weights, bit for bit, as without it.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import torch
from damage import DAMAGES, damaged
from points import DEATH, Gate, die, full, in_child
from trainings import DIS, SMALL, TWO, contents, write_digits
from typer.testing import CliRunner

from gmmcli.cli.app import app
from gmmcli.evaluate.classification import accuracy
from gmmcli.evaluate.subject import Subject
from gmmcli.provenance import git_revision
from gmmcli.recipe import Recipe
from gmmcli.run import LASTING, Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup
from gmmcli.upkeep import faults, litter, repair

SAVES = ("log.checkpoint_every=2", "log.keep=2", "log.preview_every=4", "log.validate_every=3")
ROLLBACK = (TWO, 'stages.1.optim={kind="sgd",learning_rate=1e30}', 'guard.on_divergence="rollback"', "guard.lr_factor=1e-32", *SAVES[:2])


def train_to_the_end(setup: Setup, run: Run) -> None:
    """A whole training."""
    train(setup, run, quiet=True)


def train_half(setup: Setup, run: Run) -> None:
    """What a crash after the sixth of ten steps leaves."""
    train(setup, run, quiet=True)
    for checkpoint in run.checkpoints:
        if checkpoint.step > 6:
            checkpoint.remove()
    run.describe(status="running")


def resume(setup: Setup, run: Run) -> None:
    """The rest of a training."""
    train(setup, run, resume=True, quiet=True)


def evaluate(setup: Setup, run: Run) -> None:
    """A result with its arrays and pictures."""
    accuracy(Subject.open(run.path))


@dataclass(frozen=True)
class Work:
    """Overrides of the recipe, what is done before faults strike, and what they strike."""

    overrides: Sequence[str]
    struck: Callable[[Setup, Run], None]
    before: Callable[[Setup, Run], None] = lambda setup, run: None


WORK = {
    "training": Work(SAVES, train_to_the_end),
    "rollback": Work(ROLLBACK, train_to_the_end),
    "resume": Work((DIS, *SAVES[:1], "log.keep=9", *SAVES[2:]), resume, train_half),
    "evaluation": Work((DIS, *SAVES[:2]), evaluate, train_to_the_end),
}


@dataclass
class Tally:
    """How many faults of a kind there were, and what did not go as it must."""

    tried: int = 0
    struck: int = 0
    wrong: list[str] = field(default_factory=list)


def begin(folder: Path, overrides: Sequence[str]) -> tuple[Setup, Run]:
    """A run of ten steps on 80 digits."""
    folder.mkdir(parents=True)
    recipe = Recipe.loads(SMALL.format(path=write_digits(folder / "digits.npz")), overrides=overrides)
    return Setup.prepare(recipe), Run.create(recipe, folder / "runs", [])


def strike(folder: Path, kind: str, at: int, fault: Callable[[], None], only: str = "") -> tuple[int, object]:
    """Work, in a process of its own, until the fault; return the process's exit code, and how many points it passed."""

    def work() -> int:
        setup, run = begin(folder, WORK[kind].overrides)
        WORK[kind].before(setup, run)
        gate = Gate(folder / "runs", at, fault, only)
        gate.arm()
        WORK[kind].struck(setup, run)
        return gate.passed

    return in_child(work)


def recovered(folder: Path, kind: str) -> list[object]:
    """What must be true after a fault: every command answers, and a resume comes to the weights and events that are returned."""
    (path,) = (folder / "runs").iterdir()
    run = Run(path)
    for words in (["runs", "ls"], ["runs", "show", "--run", str(path)] if run.checkpoints else ["runs", "check"]):
        result = CliRunner().invoke(app, [*words, "--runs-dir", str(path.parent)])
        assert result.exit_code in (0, 6 if words[1] == "check" else 0), f"{words}: {result.exception or result.stderr}"
    if run.checkpoints:
        assert faults(run) == [], faults(run)
        result = CliRunner().invoke(app, ["sample", "--run", str(path), "--n", "2", "--steps", "1", "--quiet"])
        # 5: the weights of the step that a rollback undoes are finite, and too large for chains
        assert result.exit_code in (0, 5), f"sample: {result.exception or result.stderr}"
    train(Setup.prepare(run.recipe), run, resume=True, quiet=True)
    repair(run)
    assert litter(run) == []
    checkpoint = run.checkpoint()
    events = [[line[key] for key in ("step", "event")] for line in run.metrics() if line.get("event") in LASTING]
    measured = accuracy(Subject.open(path)).result["values"] if kind == "evaluation" else None
    return [checkpoint.step, {key: value[2].hex() for key, value in contents(checkpoint).items()}, events, measured]


def at_every_point(kind: str, fault: Callable[[], None], expected: int, every: int, folder: Path) -> Tally:
    """Let a fault strike before every ``every``-th operation of a work."""
    tally = Tally()
    code, n = strike(folder / "whole", kind, 0, fault)
    assert code == 0, n
    _, truth = in_child(lambda: recovered(folder / "whole", kind))
    for at in range(1, int(str(n)) + 1, every):
        place = folder / str(at)
        code, said = strike(place, kind, at, fault)
        tally.tried += 1
        tally.struck += code == expected
        if code not in (0, expected):  # 0: a thread writes, so that the order is not always the same
            tally.wrong.append(f"{kind} at {at}: exit code {code}, {said}")
        code, after = in_child(lambda place=place: recovered(place, kind))
        if code or after != truth:
            tally.wrong.append(f"{kind} at {at}: {after if code else 'other weights, events or figures'}")
        shutil.rmtree(place)
    return tally


def at_every_file(name: str, every: int, path: Path, folder: Path) -> Tally:
    """Damage every ``every``-th file of a finished run; each command must end as documented, and none may use what is damaged."""
    tally = Tally()
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    for file in files[::every]:
        tally.tried += 1
        copy = folder / "runs" / path.name
        shutil.copytree(path, copy)
        tally.struck += DAMAGES[name](copy / file.relative_to(path))
        code, said = in_child(lambda copy=copy, file=file: damaged(copy, copy / file.relative_to(path)))
        tally.wrong += [f"{name} {file.relative_to(path)}: {line}" for line in ([said] if code else said)]
        shutil.rmtree(folder)
    return tally


def tallies(every: int, jobs: int, folder: Path) -> dict[str, Tally]:
    """Everything, in so many processes at once."""
    in_child(lambda: train_to_the_end(*begin(folder / "run", (DIS, *SAVES))))
    (path,) = (folder / "run" / "runs").iterdir()
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        begun = {}
        for kind in WORK:
            begun[f"killed at a write, {kind}"] = pool.submit(at_every_point, kind, die, DEATH, every, folder / f"die-{kind}")
            begun[f"disk full at a write, {kind}"] = pool.submit(at_every_point, kind, full, 99, every, folder / f"full-{kind}")
        begun |= {f"file {name}": pool.submit(at_every_file, name, every, path, folder / name) for name in DAMAGES}
        return {name: future.result() for name, future in begun.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many points and files")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", type=Path, help="write the table here")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gmmc-faults-") as place:
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"  # where results go that a run does not take
        rows = tallies(asked.every, asked.jobs, Path(place))
    revision = git_revision(Path(__file__).parent) or "unknown"
    head = f"{datetime.now(UTC):%Y-%m-%d}, commit {revision[:7] + revision[40:]}, {(time.monotonic() - started) / 60:.0f} minutes.\n\n"
    lines = [f"| {name} | {one.tried:,} | {one.struck:,} | {len(one.wrong):,} |" for name, one in rows.items()]
    page = head + "| fault | tried | struck | not survived |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"
    wrong = [line for one in rows.values() for line in one.wrong]
    print("\n".join(wrong), page, sep="\n")
    print(Counter(line.split(":")[-1][:60] for line in wrong).most_common(8), file=sys.stderr)
    if asked.page:
        asked.page.write_text(page, encoding="utf-8")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
