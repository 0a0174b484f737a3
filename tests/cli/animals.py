"""What the tests of the command line share: the command, its verbs, and a recipe of three kinds of animals."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from answers import FOLDER, check
from typer.testing import CliRunner, Result

from gmmcli.cli.app import app

RECIPE = """# Animals, in a second.
name = "animals"
[data]
source = {{ kind = "npz", path = {path!r} }}
batch_size = 16
[model]
backbone = {{ kind = "wide-resnet", depth = 10, width = 1, init = "kaiming", stem_stride = 2 }}
[chains]
buffer_size = 12
sampler = {{ kind = "sgld", n_steps = 2, step_size = 0.1 }}
[compute]
precision = "fp32"
[[stages]]
epochs = 2
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
[log]
every = 2
preview_every = 0
"""


def write_animals(folder: Path) -> Path:
    """Write 60 training and 30 test images of three kinds, and the recipe that trains on them in a second; return its path."""
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(60) % 3, "test": np.arange(30) % 3}
    pixels = {
        f"{name}_images": (80 * part[:, None, None] + rng.integers(0, 90, (len(part), 8, 8))).astype(np.uint8)
        for name, part in labels.items()
    }
    path, recipe = folder / "animals.npz", folder / "animals.toml"
    np.savez(path, **pixels, **{f"{name}_labels": part for name, part in labels.items()}, class_names=np.array(["cat", "dog", "fox"]))
    recipe.write_text(RECIPE.format(path=str(path)))
    return recipe


@dataclass(frozen=True)
class Trained:
    """Where the run lies, what it was trained by, and what `train --json` answered."""

    runs_dir: Path
    recipe: Path
    answer: dict[str, Any]

    @property
    def path(self) -> Path:
        path: Path = self.runs_dir / self.answer["run"]
        return path


Gmmc = Callable[..., Result]


def invoke(*words: object) -> Result:
    """Run ``gmmc`` with these words; what is not a GmmcError comes up as it is. An answer of --json is held to its schema."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    if "--json" in words and (result.stdout or not result.exit_code) and FOLDER.is_dir():
        check(json.loads(result.stdout))
    return result


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, below in command.commands.items():
        yield from leaves(below, f"{name} {word}".strip())
