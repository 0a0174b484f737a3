"""The datasets that there are, what each must offer, and how a command line names one."""

import dataclasses
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from gmmcli.data.dataset import Dataset, SplitName
from gmmcli.data.digits import Digits
from gmmcli.data.downloaded import CIFAR10, CIFAR100, MNIST, SVHN
from gmmcli.data.folder import Folder
from gmmcli.data.npz import Npz
from gmmcli.errors import RecipeError
from gmmcli.hints import nearest
from gmmcli.registry import Registry
from gmmcli.schema import build_part


@runtime_checkable
class Source(Protocol):
    """``[data.source]``; ``Setup`` loads it, and whoever evaluates a run.

    One at a place of the user's choice has a field ``path``, one with a folder for its files a field ``root``, both strings: a command line
    names the first as ``KIND:PATH``, and a run looks for either from where it was trained.
    """

    @property
    def kind(self) -> str:
        """The name by which a recipe chooses it: a field, whose default is the name in the registry."""

    @property
    def n_classes(self) -> int | None:
        """The number of classes, where it is known before the images are."""

    def load(self) -> Dataset:
        """Read, or download, the three splits, always the same ones; DataError where they are missing or broken."""


SOURCES: Registry[type[Source]] = Registry(
    "sources",
    {"digits": Digits, "mnist": MNIST, "cifar10": CIFAR10, "cifar100": CIFAR100, "svhn": SVHN, "folder": Folder, "npz": Npz},
)


def located(source: Source, base: Path) -> Source:
    """Return a source whose relative path starts at ``base``; as it is where nothing is there."""
    table: Any = source  # a dataclass, which mypy cannot read in a protocol
    for key in {"root", "path"} & _fields(table):
        place = Path(getattr(table, key))
        found = Path(os.path.relpath(base / place))
        if not place.is_absolute() and found.exists():
            return cast(Source, dataclasses.replace(table, **{key: str(found)}))
    return source


def foreign(source: Source, name: SplitName) -> Dataset:
    """Load data that no run was trained on, to evaluate one of its splits.

    The test split of a user's own images is all of them, or those set apart for testing: they have a method ``everything``.
    """
    if name != "test" or not isinstance(source, Folder | Npz):
        return source.load()
    split, class_names = source.everything()
    return Dataset(source.path, class_names, split, split, split)


def usage(kind: str) -> str:
    """Return how a command line names a dataset of this kind: ``svhn``, ``npz:PATH``."""
    return f"{kind}:PATH" if "path" in _fields(SOURCES[kind]) else kind


def parse_source(text: str) -> Source:
    """Read ``NAME`` or ``KIND:PATH`` as it stands on a command line: ``svhn``, ``folder:my/images``, ``npz:x.npz``."""
    kind, _, path = text.partition(":")
    if kind in SOURCES and bool(path) == ("path" in _fields(SOURCES[kind])):
        table = {"kind": kind} | ({"path": path} if path else {})
        return cast(Source, build_part(SOURCES, Source, table, "data.source"))
    found = source_at(text)
    near = f"{found.kind}:{text}" if found else nearest(kind, SOURCES)
    hint = f"did you mean {near}?" if near and near != kind else f"give one of {', '.join(map(usage, SOURCES))}"
    raise RecipeError(f"no dataset {text!r}", hint)


def source_at(path: str) -> Source | None:
    """The images at a path: a folder, a .zip of one, or an .npz; None where there is none of these."""
    place = Path(path)
    with suppress(OSError, ValueError):  # no file can have such a name
        if (path and place.is_dir()) or (place.suffix == ".zip" and place.is_file()):
            return Folder(path=path)
        if place.suffix == ".npz" and place.is_file():
            return Npz(path=path)
    return None


def _fields(source: Any) -> set[str]:
    return {*getattr(source, "__dataclass_fields__", ())}
