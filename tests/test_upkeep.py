"""Damage is found and set aside, litter removed, old checkpoints thinned; what is needed stays."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gmmcli.checkpoint import Checkpoint
from gmmcli.errors import RunError
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.storage import replacing
from gmmcli.upkeep import faults, litter, newest_intact, repair, thin
from untrained import create, save

FAULTS: Callable[[Checkpoint], list[str]] = Checkpoint.faults.fget  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Recipe) -> Run:
    """Four checkpoints."""
    run = create(tiny_recipe, tmp_path / "runs")
    for step in (10, 20, 30, 40):
        save(run, step, best_step=20)
    return run


def damage(run: Run, step: int, name: str = "model.safetensors") -> Path:
    path = run.path / "checkpoints" / f"step-{step:08d}" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def steps(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints]


@pytest.mark.parametrize("name", ["model.safetensors", "progress.json", "manifest.json"])
def test_one_flipped_bit_is_a_fault_and_its_checkpoint_is_set_aside(run: Run, name: str) -> None:
    assert faults(run) == litter(run) == repair(run) == []
    damage(run, 40, name)
    assert len(faults(run)) >= 1
    assert all("step-00000040" in fault for fault in faults(run))
    assert repair(run, dry_run=True) == [f"set aside {run.path / 'checkpoints' / 'step-00000040'}"]
    assert steps(run) == [10, 20, 30, 40]
    repair(run)
    assert steps(run) == [10, 20, 30]
    assert (run.path / "checkpoints" / "damaged-step-00000040" / name).exists()
    assert faults(run) == repair(run) == []


def test_every_way_to_be_damaged_is_named(run: Run) -> None:
    folder = run.path / "checkpoints"
    (folder / "step-00000010" / "model.safetensors").unlink()
    (folder / "step-00000020" / "stranger.txt").touch()
    (folder / "step-00000030" / "model.safetensors").unlink()
    (folder / "step-00000030" / "model.safetensors").mkdir()
    (folder / "step-00000040" / "progress.json").write_bytes(b"")
    (run.path / "provenance.json").write_text("{")
    (run.path / "recipe.toml").write_text("[")
    found = faults(Run(run.path))
    wanted = ("has no model", "stranger.txt is not of", "has no model", "progress.json is damaged", "not a readable run", "provenance.json")
    assert len(found) == len(wanted)
    assert all(words in fault for words, fault in zip(wanted, found, strict=True))


def test_the_newest_intact_checkpoint(run: Run) -> None:
    assert newest_intact(run).step == 40
    for step in (40, 30):
        damage(run, step)
    assert newest_intact(Run(run.path)).step == 20
    for step in (20, 10):
        damage(run, step)
    with pytest.raises(RunError, match="has no intact checkpoint"):
        newest_intact(Run(run.path))


def test_two_that_are_set_aside_do_not_collide(run: Run) -> None:
    for _ in range(2):
        damage(run, 40)
        repair(run)
        save(run, 40)
    assert sorted(path.name for path in (run.path / "checkpoints").glob("damaged-*")) == [
        "damaged-step-00000040",
        "damaged-step-00000040-2",
    ]


def dead_process() -> int:
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def test_litter_of_dead_processes_is_removed_and_that_of_living_ones_is_not(run: Run) -> None:
    folder = run.path / "checkpoints"
    left = [folder / ".step-00000050", folder / "step-00000060"]  # being written; half removed
    for path in left:
        path.mkdir()
        (path / "model.safetensors").touch()
    left.append(run.path / f".{dead_process()}-0123456789abcdef-provenance.json")
    left[-1].touch()
    stay = [folder / "step-10.bak", folder / "notes", run.path / ".lock", run.path / ".mine"]
    for path in stay:
        path.touch()
    with replacing(run.path / "x.json"):
        assert litter(run) == sorted(left)
        repair(run)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in stay)
    assert steps(run) == [10, 20, 30, 40]


def test_of_a_replaced_checkpoint_the_old_one_is_litter_and_counts_until_then(run: Run) -> None:
    folder = run.path / "checkpoints"
    (folder / "step-00000040").rename(folder / ".old-step-00000040")
    assert (steps(run), litter(run)) == ([10, 20, 30, 40], [])
    save(run, 40)
    (folder / ".old-step-00000030").mkdir()
    (folder / ".old-step-00000030" / "manifest.json").touch()
    assert litter(run) == [folder / ".old-step-00000030"]


def test_a_killed_training_is_recorded_once(run: Run) -> None:
    run.describe(status="running")
    assert repair(run, dry_run=True) == ["recorded that the training was killed"] == repair(run)
    assert run.provenance["status"] == "killed"
    assert repair(run) == []


def test_a_run_that_is_being_trained_is_left_alone(run: Run) -> None:
    (run.path / "checkpoints" / ".step-00000050").mkdir()
    with run.locked():
        assert litter(run) == []
        for act in (repair, lambda run: thin(run, 1)):
            with pytest.raises(RunError, match="is being trained"):
                act(run)


@pytest.mark.parametrize("at", ["before its manifest is read", "while its files are read", "before its folder is listed"])
def test_a_checkpoint_that_a_training_removes_while_it_is_read_is_no_damage(run: Run, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, verified, iterdir = run.checkpoints[0], Checkpoint._verified, Path.iterdir

    def removed(path: Path) -> None:
        if path == first.path and path.exists():
            Checkpoint(path).remove()

    if at == "before its manifest is read":
        monkeypatch.setattr(Checkpoint, "faults", property(lambda one: (removed(one.path), FAULTS(one))[1]))
    elif at == "while its files are read":
        monkeypatch.setattr(Checkpoint, "_verified", lambda one, name: (removed(one.path), verified(one, name))[1])
    else:
        monkeypatch.setattr(Path, "iterdir", lambda path: (removed(path), iterdir(path))[1])
    assert faults(run) == []
    assert steps(run) == [20, 30, 40]


def test_the_newest_and_the_best_stay(run: Run) -> None:
    assert thin(run, 1, dry_run=True) == [f"removed {run.checkpoints[i].path}" for i in (0, 2)]
    assert steps(run) == [10, 20, 30, 40]
    thin(run, 3)
    assert steps(run) == [20, 30, 40]
    thin(run, 1)
    assert steps(run) == [20, 40]
    assert thin(run, 1) == []


def test_the_newest_intact_one_stays_however_old(run: Run) -> None:
    for step in (20, 30, 40):
        damage(run, step)
    thin(run, 1)
    assert steps(run) == [10, 20, 40]
