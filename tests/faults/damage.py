"""Ways to damage a file, and what every command must make of a run that has one."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from typer.testing import CliRunner

from gmmcli.cli.app import app
from gmmcli.run import Run

DOCUMENTED = {0, 1, 2, 3, 6, 7}


def flip(path: Path) -> bool:
    """Flip a bit in the middle."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return bool(content)


def cut(path: Path) -> bool:
    """Leave the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return True


def empty(path: Path) -> bool:
    """Leave nothing."""
    path.write_bytes(b"")
    return True


def remove(path: Path) -> bool:
    """Remove it."""
    path.unlink()
    return True


def turn_into_a_folder(path: Path) -> bool:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()
    return True


def overwrite(path: Path) -> bool:
    """Bytes that are neither text nor anything else."""
    path.write_bytes(bytes(range(256)) * 4)
    return True


def join(path: Path) -> bool:
    """Put a stranger beside it."""
    (path.parent / "stranger.bin").write_bytes(b"?")
    return True


DAMAGES: dict[str, Callable[[Path], bool]] = {
    "with a bit flipped": flip,
    "cut in half": cut,
    "emptied": empty,
    "removed": remove,
    "turned into a folder": turn_into_a_folder,
    "overwritten": overwrite,
    "joined by a stranger": join,
}


def _recorded(file: Path) -> str:
    """What the manifest beside a file says of it."""
    return str(json.loads((file.parent / "manifest.json").read_text())[file.name]["sha256"])


def damaged(path: Path, file: Path) -> list[str]:
    """Call every command that reads a run; return what was not as it must be: an undocumented end, or damaged weights that were used."""
    wrong, runs = [], str(path.parent)
    commands = {
        "runs ls": [],
        "runs show": ["--run", str(path)],
        "runs check": [],
        "sample": ["--run", str(path), "--n", "2", "--steps", "1"],
        "eval accuracy": ["--run", str(path)],
        "report": ["--out", str(path.parent / "page.html")],
        "train --resume": ["--run", str(path)],
    }
    weights = file.name == "model.safetensors" and file.is_file() and sha256(file.read_bytes()).hexdigest() != _recorded(file)
    for name, words in commands.items():
        result = CliRunner().invoke(app, [*name.split(), *words, "--runs-dir", runs])
        if result.exit_code not in DOCUMENTED or not (result.exception is None or isinstance(result.exception, SystemExit)):
            wrong.append(f"{name} ends with {result.exit_code}, {type(result.exception).__name__}: {result.exception}")
        newest = [checkpoint.path for checkpoint in Run(path).checkpoints][-1:]
        if name in ("sample", "eval accuracy") and weights and [file.parent] == newest and result.exit_code == 0:
            wrong.append(f"{name} uses damaged weights")
        if "Traceback" in result.stderr:
            wrong.append(f"{name} shows a traceback")
    return wrong
