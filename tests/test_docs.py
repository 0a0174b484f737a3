"""Generated pages are what the code says."""

import re
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


IDIOMS = [
    "cannot be meant",
    "At most so many",
    "Of everything drawn",
    "The ball.",
    "not to be had",
    "go on with",
    "goes on from",
    "to the bit",
    "is asked nothing",
    "Forward passes an image",
    "in all but name",
]
"""Phrases that were replaced by plain words and should not return."""
ROOT = DOCS.parent
PROSE = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "src").rglob("*.py"))]


def idioms(text: str) -> list[str]:
    """The idioms in a text, also across a line break."""
    words = " ".join(text.split())
    return [idiom for idiom in IDIOMS if idiom in words]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_and_help_texts_use_plain_words(path: Path) -> None:
    assert idioms(path.read_text(encoding="utf-8")) == []


def test_an_idiom_would_be_noticed_across_a_line_break() -> None:
    assert idioms("A resume continues\nto the\n    bit. At most so many images.") == ["At most so many", "to the bit"]


def test_every_promise_on_security_names_a_test_that_is_there() -> None:
    promised = (DOCS.parent / "SECURITY.md").read_text(encoding="utf-8").partition("## What is promised")[2].partition("## What is not")[0]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promised)
    assert [f"{file}::{test}" for file, test in named if f"def {test}(" not in (DOCS.parent / file).read_text(encoding="utf-8")] == []
    promises = [part for part in re.split(r"\n\n|\n(?=- )", promised)[2:] if part.strip()]  # after what introduces them
    assert len(promises) == 14
    assert [part for part in promises if "::test_" not in part] == []
