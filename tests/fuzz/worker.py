"""A process that has imported gmmc once and runs many inputs, each in a fork of itself."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

import import_inputs
import npz_inputs
import option_inputs
import picture_inputs
import run_inputs
import toml_inputs
from box import Box

Input = tuple[str, int]
"""A kind and a number."""
Make = Callable[[Random, Path], list[str]]
KINDS: dict[str, tuple[Make, int]] = {
    "recipe": (toml_inputs.recipe, 24),
    "set": (toml_inputs.override, 15),
    "study": (toml_inputs.study, 10),
    "plan": (toml_inputs.plan, 4),
    "npz": (npz_inputs.npz, 12),
    "folder": (picture_inputs.folder, 8),
    "zip": (picture_inputs.zipped, 8),
    "image": (picture_inputs.own, 4),
    "model": (run_inputs.model, 8),
    "checkpoint": (run_inputs.checkpoint, 5),
    "run": (run_inputs.run, 7),
    "option": (option_inputs.option, 7),
    "import": (import_inputs.authors, 8),
}
"""What makes the inputs of a kind, and the kind's share: a function that writes files into a folder and returns a command's words."""
REAL_EVERY = 250
"""One input in so many goes through ``python -m gmmcli``."""


def work(inputs: Sequence[Input], folder: Path, results: Path) -> None:
    """Run inputs one after the other, and append a line of JSON for each to a file."""
    from commands import import_all

    import_all()
    with results.open("w") as file:
        for kind, number in inputs:
            file.write(json.dumps(one(kind, number, folder / f"{kind}-{number}")) + "\n")
            file.flush()


def one(kind: str, number: int, folder: Path) -> dict[str, object]:
    """Make an input and run it."""
    box = Box(folder)
    try:
        words = KINDS[kind][0](Random(f"{kind} {number}"), box.work)
        real = number % REAL_EVERY == REAL_EVERY - 1 and words[0] != "load-model" and not any("\x00" in word for word in words)
        outcome = box.run(words, real=real)
    finally:
        box.remove()
    return {"kind": kind, "number": number, "words": words} | asdict(outcome)
