"""What a shell completes: runs, recipes, classes, datasets, scores; told without torch, and never an error."""

import json
import os
import re
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path

import typer

from gmmcli.errors import GmmcError
from gmmcli.registry import installed
from gmmcli.run_folder import complete, default_runs_dir, every_run_path, run_paths
from gmmcli.shelf import shipped

SOURCES = ("digits", "mnist", "cifar10", "cifar100", "svhn", "folder:", "npz:")
SETS = ("interp", "noise", "uniform", "gaussian", "celeba", *SOURCES)
SCORES = ("all", "log_px", "max_py", "mass", "max_logit", "energy", "mahalanobis", "knn", "vim")
LOSSES = ("ce", "ce-scaled", "margin", "dlr", "dlr-targeted", "mmc", "mmc-targeted")
SPACES = ("best", "inception", "efficientnet-lite0", "pixels")
"""The names of what torch would have to be imported for; a test holds them to the registries."""
LONGEST_HEADER = 2**24
"""Bytes of the header of a model that are read for the names of its classes."""

Completer = Callable[[typer.Context, str], list[str]]


def completer(names: Callable[[typer.Context, str], Iterable[str]]) -> Completer:
    """Make a completion of a function that gives names: those that begin as what was typed, none where something cannot be read."""

    @wraps(names)
    def completing(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [name for name in names(ctx, incomplete) if name.startswith(incomplete)]
        except (GmmcError, OSError, ValueError, LookupError, TypeError, AttributeError):  # of files that others wrote
            return []

    return completing


def among(family: str, *names: str) -> Completer:
    """Complete these names, and those that installed packages add to the family."""
    return completer(lambda ctx, incomplete: [*names, *(point.name for point in installed(f"gmmcli.{family}"))])


def _files(incomplete: str, *suffixes: str) -> list[str]:
    folder = os.path.dirname(incomplete)  # noqa: PTH120 - what was typed is kept letter by letter
    found = sorted(Path(folder or ".").glob("*"))
    return [os.path.join(folder, path.name) + "/" * path.is_dir() for path in found if path.suffix in suffixes or path.is_dir()]  # noqa: PTH118


@completer
def recipes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Recipes that come with gmmc, and TOML files."""
    return [*shipped(), *_files(incomplete, ".toml")]


@completer
def studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Studies that come with gmmc, and TOML files."""
    return [*shipped("studies"), *_files(incomplete, ".toml")]


@completer
def sources(ctx: typer.Context, incomplete: str) -> list[str]:
    """Datasets by name or KIND:, and folders, .zip and .npz files."""
    return [*SOURCES, *(point.name for point in installed("gmmcli.sources")), *_files(incomplete, ".zip", ".npz")]


def _runs_dir(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("runs_dir") or default_runs_dir())


@completer
def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs, the newest first, and the names of their recipes, which mean the newest of each; those of studies by their paths."""
    folder = _runs_dir(ctx)
    paths = every_run_path(folder)[::-1]
    ids = [path.name if path.parent == folder else str(path) for path in paths]
    return [*dict.fromkeys(re.sub("^.*?Z-", "", path.name) for path in paths if path.parent == folder), *ids]


@completer
def spaces(ctx: typer.Context, incomplete: str) -> list[str]:
    """Feature spaces, and runs, whose features are one."""
    return [*SPACES, *runs(ctx, incomplete)]


@completer
def classes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The classes of the run that is meant."""
    named = ctx.params.get("run") or os.environ.get("GMMC_RUN") or ""
    if (Path(named) / "recipe.toml").is_file() and named:
        paths = [Path(named)]
    else:
        paths = [path for path in run_paths(_runs_dir(ctx)) if path.name.startswith(named) or path.name.partition("Z-")[2] == named]
    checkpoints = [folder for path in paths for folder in complete(path / "checkpoints").values()]
    with (checkpoints[-1] / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER)))
    return ["all", *json.loads(header["__metadata__"]["class_names"])]
