"""``make demo`` ends with a picture, what to look at and what to type next."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gmmcli.recipe import Recipe

MAKEFILE = Path(__file__).parents[1] / "Makefile"
MAKE = shutil.which("make")
FOLDERS, ARCHIVE = "data/cifar10/train/ship/", "data/cifar-10-binary.tar.gz"
SHIPS = ["--set", "data.source.kind=folder", "--set", "data.source.path=data/cifar10"]

pytestmark = pytest.mark.skipif(not MAKEFILE.is_file() or MAKE is None, reason="needs the checkout, and make")


def demo(folder: Path) -> list[str]:
    """The lines that it prints; its gmmc prints what it is asked for."""
    shutil.copy(MAKEFILE, folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    gmmc = folder / ".venv" / "bin" / "gmmc"
    gmmc.write_text('#!/bin/sh\necho "gmmc $*"\n')
    gmmc.chmod(0o755)
    for i, name in enumerate(("pyproject.toml", "constraints.txt", ".venv/.ready")):
        (folder / name).touch()
        os.utime(folder / name, (i, i))  # installed after it was described
    made = subprocess.run([str(MAKE), "--silent", "demo"], cwd=folder, capture_output=True, text=True, check=True)
    assert made.stderr == ""
    return made.stdout.splitlines()


@pytest.mark.parametrize(
    ("there", "command"),
    [
        ((), ["eval", "all"]),
        ((FOLDERS,), ["train", "cifar10_quick_joint", *SHIPS]),
        ((ARCHIVE,), ["train", "cifar10_quick_joint"]),
        ((FOLDERS, ARCHIVE), ["train", "cifar10_quick_joint", *SHIPS]),
    ],
)
def test_the_demo_draws_every_digit_and_says_what_to_look_at_and_to_type_next(
    there: tuple[str, ...], command: list[str], tmp_path: Path
) -> None:
    for name in there:
        path = tmp_path / name
        path.mkdir(parents=True) if name.endswith("/") else (path.parent.mkdir(exist_ok=True), path.touch())
    train, sample, look, following = demo(tmp_path)
    assert train == "gmmc train recipes/digits_gen.toml"
    assert sample == "gmmc sample --class all --per-class 8 --with-real"
    assert look.startswith("Look at that picture: ")
    what, _, typed = following.partition(": ")
    assert what == ("Next, in colour and a few minutes" if there else "Next, how good it is")
    assert shlex.split(typed) == [".venv/bin/gmmc", *command]
    if there:
        assert Recipe.load(command[1], command[3::2]).name == "cifar10_quick_joint"
