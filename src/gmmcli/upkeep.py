"""What is wrong with a run's files, what crashes have left, and what need not be kept."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gmmcli.checkpoint import Checkpoint
from gmmcli.errors import GmmcError, RunError
from gmmcli.run import Run
from gmmcli.run_folder import MANIFEST, NAME, OLD
from gmmcli.storage import TEMPORARY


def faults(run: Run) -> list[str]:
    """What of a run cannot be read, or is not as it was written; every file of its checkpoints is read."""
    found = [fault for checkpoint in run.checkpoints for fault in _faults_of(checkpoint, run)]
    for read in (lambda: run.recipe, lambda: run.provenance):
        try:
            read()
        except GmmcError as error:
            found.append(error.message)
    return [*found, *run.damaged_results()]


def _faults_of(checkpoint: Checkpoint, run: Run) -> list[str]:
    """What is wrong with a checkpoint; nothing of one that a training removes while it is read."""
    try:
        found = checkpoint.faults
    except FileNotFoundError:
        found = []
    return found if checkpoint in run.checkpoints else []


def litter(run: Run) -> list[Path]:
    """What a process that died while it wrote has left; nothing of what a training that goes on is writing."""
    return sorted({*_temporaries(run.path), *(() if run.is_locked else _unfinished(run.path / "checkpoints"))})


def _temporaries(folder: Path) -> Iterator[Path]:
    """Hidden files that were to take the place of others, of processes that are no more."""
    for path in folder.rglob(".*"):
        found = re.fullmatch(TEMPORARY, path.name)
        if found and path.is_file() and not _lives(int(found[1])):
            yield path


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _unfinished(folder: Path) -> Iterator[Path]:
    """Checkpoints that were being written, replaced or removed."""
    yield from folder.glob(".step-*")
    for path in folder.glob("*step-*"):
        replaced = path.name.startswith(OLD) and (folder / path.name.removeprefix(OLD) / MANIFEST).is_file()
        if NAME.fullmatch(path.name) and path.is_dir() and (replaced or not (path / MANIFEST).exists()):
            yield path


def newest_intact(run: Run) -> Checkpoint:
    """The newest checkpoint whose files are all as they were written; RunError where there is none."""
    for checkpoint in reversed(run.checkpoints):
        if not checkpoint.faults:
            return checkpoint
    raise RunError(f"{run.path} has no intact checkpoint", "train it again")


def repair(run: Run, dry_run: bool = False) -> list[str]:
    """Set damaged checkpoints aside, remove litter, and record that a training was killed; return what was done, or would be.

    Raises:
        RunError: the run is being trained.
    """
    if run.is_locked:
        raise RunError(f"{run.id} is being trained", "wait for that process, or stop it")
    done = []
    for checkpoint in [checkpoint for checkpoint in run.checkpoints if checkpoint.faults]:
        done.append(f"set aside {checkpoint.path}")
        if not dry_run:
            checkpoint.set_aside()
    for path in litter(run):
        done.append(f"removed {path}")
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    with suppress(RunError):  # of a provenance.json that cannot be read
        if run.status == "killed" and run.provenance.get("status") != "killed":
            done.append("recorded that the training was killed")
            if not dry_run:
                run.describe(status="killed")
    return done


def thin(run: Run, keep: int, dry_run: bool = False) -> list[str]:
    """Remove all checkpoints but the ``keep`` newest and the best, and never the newest intact one; return what was done, or would be.

    Raises:
        RunError: the run is being trained, or has no intact checkpoint.
        CheckpointError: the newest intact checkpoint does not say which is the best.
    """
    if run.is_locked:
        raise RunError(f"{run.id} is being trained", "wait for that process, or stop it")
    intact = newest_intact(run)
    needed = {intact.step, intact.progress.get("best_step"), *(checkpoint.step for checkpoint in run.checkpoints[-keep:])}
    done = []
    for checkpoint in [checkpoint for checkpoint in run.checkpoints if checkpoint.step not in needed]:
        done.append(f"removed {checkpoint.path}")
        if not dry_run:
            checkpoint.remove()
    return done
