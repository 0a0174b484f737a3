"""A reader who follows a page of the docs in a folder of their own: what its blocks say is done, with little data and few steps."""

import json
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tomli
import tomli_w
from animals import invoke

from extension import install
from fences import Block, lines, words
from gmmcli import registry
from gmmcli.recipe import Recipe

FEW = 20
"""Images of an evaluation that the page gives no number of."""
PANDAS: Any = ModuleType("pandas")
"""Pretended: it does not come with gmmcli."""
PANDAS.json_normalize = lambda rows: SimpleNamespace(rows=rows)


class Reader:
    """Pastes what a page says, in this process.

    Args:
        page: its blocks. The package that they write, if they do, is installed before the first: modules of Python, and entry points
            that say which.
        folder: the current directory.
        monkeypatch: which takes the package away again.
    """

    def __init__(self, page: Sequence[Block], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here: dict[str, Any] = {}
        """What the page's Python has defined."""
        entries = [tomli.loads(block.text).get("project", {}).get("entry-points", {}) for block in page if block.language == "toml"]
        parts: dict[str, dict[str, str]] = {}
        self.modules: dict[str, str] = {}
        for group, name, place in ((group, *item) for entry in entries for group, own in entry.items() for item in own.items()):
            module, attribute = place.split(":")
            parts.setdefault(group.removeprefix("gmmcli."), {})[name] = place
            sources = [block.text for block in page if block.language == "python" and _defines(block, attribute)]
            assert sources, f"{place}: no block defines {attribute}"
            self.modules[module] = sources[0]
        if parts:
            install(folder, monkeypatch, self.modules, parts)

    def follow(self, block: Block) -> None:
        """Execute a block in its language."""
        getattr(self, block.language)(block)

    def sh(self, block: Block) -> None:
        """Commands of gmmc, whose output may go to a file."""
        for line in lines(block.text):
            program, *rest = words(line)
            assert program == "gmmc", f"{block.where}: mark the block as not run, and say why: {line}"
            *asked, to, path = rest if rest[-2:-1] == [">"] else [*rest, "", ""]
            done = invoke(*small(asked))
            assert done.exit_code == 0, f"{block.where}: {line}\n{done.output}"
            if to:
                Path(path).write_text(done.stdout)

    def python(self, block: Block) -> None:
        """What is no module of the package shares its names with the rest of the page."""
        if block.text in self.modules.values():
            return  # imported where its entry point is
        with pytest.MonkeyPatch.context() as patch:
            if "import pandas" in block.text:
                patch.setitem(sys.modules, "pandas", PANDAS)
            exec(compile(block.text, block.where, "exec"), self.here)

    def toml(self, block: Block) -> None:
        """A package's entry points, a study, a recipe, or tables that a recipe could have; the two files get the name inside."""
        document = tomli.loads(block.text)
        if "project" in document:
            for group, parts in document["project"].get("entry-points", {}).items():
                for point in registry.installed(group):
                    if point.name in parts:
                        point.load()
            return
        if "name" not in document:
            document = merged(Recipe.load("digits_gen").document(), document)
        path = Path(f"{document['name']}.toml")
        path.write_text(tomli_w.dumps(document))
        done = invoke("study", path, "--dry-run") if "models" in document else invoke("recipes", "check", path)
        assert done.exit_code == 0, f"{block.where}: {done.output}"

    def json(self, block: Block) -> None:
        """Only read."""
        json.loads(block.text)


def _defines(block: Block, name: str) -> bool:
    return re.search(rf"^(class )?{name}\b", block.text, re.MULTILINE) is not None


def small(command: Sequence[str]) -> list[str]:
    """The same command on few images, of a study the plan alone, and of a training a few steps of a small network."""
    asked = list(command)
    if asked[0] in ("eval", "attack", "tsne") and "--n" not in asked:
        asked += ["--n", str(FEW)]
    if asked[0] == "study":
        asked += ["--dry-run"]
    if asked[0] == "train" and not {"--resume", "--dry-run"} & {*asked}:
        recipe = Recipe.load(asked[1], [value for option, value in pairwise(asked) if option == "--set"])
        asked += [word for key, value in shrunk(recipe).items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return asked


def shrunk(recipe: Recipe) -> dict[str, Any]:
    """Overrides that make a training take a second; images keep their size."""
    tables: dict[str, dict[str, Any]] = {f"stages.{i}": {"epochs": 1, "ramp_epochs": 0} for i in range(len(recipe.stages))}
    tables["chains"] = {"fresh_steps": 2, "sampler.n_steps": 1}
    if recipe.model.backbone.kind == "wide-resnet":
        tables["model.backbone"] = {"depth": 10, "width": 1, "stem_stride": 2}
    if recipe.data.source.kind == "digits":
        tables["data"] = {"batch_size": 600}
    return {f"{table}.{key}": value for table, keys in tables.items() for key, value in keys.items()}


def merged(document: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """The document with these keys, those of its tables one by one."""
    return document | {
        key: merged(document[key], value) if isinstance(value, dict) and key in document else value for key, value in tables.items()
    }
