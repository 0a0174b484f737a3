"""Generated pages are what the code says."""

import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest

from gmmcli.overrides import flatten
from gmmcli.recipe import Recipe, shipped

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="needs the checkout")


@dataclass
class Undocumented:
    """A table with a key that nothing is said of."""

    said: int = 1
    """Something."""
    unsaid: int = 1


def test_the_tables_of_keys_are_those_of_the_docstrings() -> None:
    written = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(DOCS / "recipes.py"))["page"](written), "make docs"


def test_every_key_of_every_shipped_recipe_is_in_a_table() -> None:
    written = (DOCS / "recipes.md").read_text(encoding="utf-8")
    tables = dict(part.split("`\n", 1) for part in written.split("### `")[1:])
    for name in shipped():
        for key, value in flatten(Recipe.load(name).document()).items():
            path, _, leaf = key.replace("stages.1", "stages.0").replace("stages.0.optim", "optim").rpartition(".")
            if leaf == "kind":
                assert f'kind = "{value}"' in tables[path], (name, key)
            elif path:
                assert f"| `{leaf}` |" in tables[path], (name, key)


def test_a_key_without_a_docstring_is_an_error() -> None:
    rows = runpy.run_path(str(DOCS / "recipes.py"))["rows"]
    with pytest.raises(ValueError, match=r"Undocumented\.unsaid has no docstring"):
        list(rows(Undocumented))
