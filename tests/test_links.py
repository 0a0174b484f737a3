"""Every link of README.md and the other pages leads to a file and a heading that are there, by GitHub's rules; nothing is fetched."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")})
MARKDOWN = MarkdownIt("commonmark").enable("table")
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the checkout")


@cache
def parsed(text: str) -> list[Token]:
    """A page's tokens, inline ones after the block they are in."""
    return [token for block in MARKDOWN.parse(text) for token in (block, *(block.children or []))]


@cache
def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings: lower case, without punctuation, a number behind those that repeat."""
    found: dict[str, int] = {}
    tokens = parsed(text)
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            words = "".join(inner.content for inner in tokens[i + 1].children or [])
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{i}" if i else slug for slug, n in found.items() for i in range(n + 1)}


def dangling(page: Path, text: str) -> Iterator[str]:
    """The links and images of a page that lead nowhere, are not https, or are no links."""
    linked = False
    for token in parsed(text):
        linked = token.type == "link_open" or (linked and token.type != "link_close")
        target = token.attrGet("href") or token.attrGet("src")
        if target is None:
            if token.type == "text" and not linked and "://" in token.content:
                yield f"no link: {token.content}"
        elif re.match(r"\w+:", target := str(target)):
            if not target.startswith("https://"):
                yield target
        else:
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            there = path.exists() and ROOT in path.resolve().parents
            if not there or (anchor and anchor not in anchors(path.read_text(encoding="utf-8") if name else text)):
                yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dangling(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "link",
    [
        "[a](docs/nothing.md)",
        "![a](docs/images/nothing.png)",
        "[a](#nothing)",
        "[a](docs/training.md#nothing)",
        "[a](http://example.org)",
        "[a](/docs/training.md)",
        "[a]: docs/nothing.md\n\nsee [a]",
        "| see |\n|---|\n| [a](docs/nothing.md) |",
        "see https://example.org",
    ],
)
def test_a_link_that_leads_nowhere_would_be_noticed(link: str) -> None:
    assert len(list(dangling(ROOT / "README.md", link))) == 1


def test_headings_have_the_anchors_of_github() -> None:
    page = "# Two `gmmc` *words*: p(y|x), C&W\n\n## Same\n\n## Same\n\n```\n# no heading\n```\n\n[first](#same), [second](#same-1)\n"
    assert anchors(page) == {"two-gmmc-words-pyx-cw", "same", "same-1"}
    assert list(dangling(ROOT / "README.md", page)) == []
