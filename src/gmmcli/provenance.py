"""Where a run comes from: the command, the code and the versions that made it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDERS = re.compile(r"[^=:'\"]*/(?=.)")
"""Of a word, what stands before the last slash of a path."""
PLAIN = re.compile(r"[\w.-]*")  # a name that a file can have
RATIO = re.compile(r"[\d.]+/[\d.]+")  # 8/255
RECORDED = ("gmmcli", "torch", "torchvision", "safetensors", "numpy", "scikit-learn")


def provenance(path: Path, argv: Sequence[str]) -> dict[str, Any]:
    """Return what provenance.json records of a new run in the directory ``path``."""
    return {
        "argv": list(argv),
        "trained_from": os.path.relpath(Path.cwd(), path),
        "git": git_revision(Path(__file__).parent),
        "python": sys.version.split()[0],
        "versions": versions(RECORDED),
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "status": "created",
    }


def public_path(path: str) -> str:
    """Return a path as published pages show it: its last part, and a hash by which namesakes in other folders are told apart."""
    folder, _, name = path.rstrip("/").rpartition("/")
    return f"{name} ({_hashed(folder)})" if folder else name


def filed_path(path: str) -> str:
    """Return a path for the name of a file: its last part, and a hash of the whole unless it is a plain name.

    By the hash, namesakes in other folders are told apart, and names that a file's name cannot have from those that it changes them to.
    """
    path = path.rstrip("/")
    return path if PLAIN.fullmatch(path) else f"{path.rpartition('/')[2]} {_hashed(path)}"


def _hashed(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]


def public_argv(argv: Iterable[str]) -> list[str]:
    """Return a command's words without the folders of paths, also of those within words, ``npz:/some/where/x.npz``."""
    return [word if RATIO.fullmatch(word) else FOLDERS.sub("", word) for word in argv]


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each package; None for one that is not installed."""
    return {name: _version(name) for name in packages}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_revision(folder: Path) -> str | None:
    """Return the commit of the checkout that a folder is part of, with ``+`` for uncommitted changes; None where none keeps its files."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "."):  # of a package installed in a folder of somebody's project
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
