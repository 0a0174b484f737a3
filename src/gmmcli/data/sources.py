"""The registry of dataset kinds."""

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gmmcli.data.digits import Digits
from gmmcli.data.downloaded import CIFAR10, CIFAR100, MNIST, SVHN
from gmmcli.data.folder import Folder
from gmmcli.data.npz import Npz
from gmmcli.errors import RecipeError

Source = Digits | MNIST | CIFAR10 | CIFAR100 | SVHN | Folder | Npz
NAMED: dict[str, type[Digits | MNIST | CIFAR10 | CIFAR100 | SVHN]] = {
    "digits": Digits,
    "mnist": MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "svhn": SVHN,
}
AT_PATH: dict[str, type[Folder | Npz]] = {"folder": Folder, "npz": Npz}


def located(source: Source, base: Path) -> Source:
    """Return a source whose relative path starts at ``base``; as it is where nothing is there."""
    for key in ("root", "path"):
        place = Path(getattr(source, key, "/"))
        found = Path(os.path.relpath(base / place))
        if not place.is_absolute() and found.exists():
            changed: Any = {key: str(found)}
            return replace(source, **changed)
    return source


def parse_source(text: str) -> Source:
    """Read ``NAME`` or ``KIND:PATH`` as it stands on a command line: ``svhn``, ``folder:my/images``, ``npz:x.npz``."""
    kind, _, path = text.partition(":")
    if kind in AT_PATH and path:
        return AT_PATH[kind](path=path)
    if kind in NAMED and not path:
        return NAMED[kind]()
    near = get_close_matches(kind, [*NAMED, *AT_PATH], n=1)
    hint = f"did you mean {near[0]}?" if near and near[0] != kind else f"give one of {', '.join(NAMED)}, folder:PATH, npz:PATH"
    raise RecipeError(f"no dataset {text!r}", hint)
