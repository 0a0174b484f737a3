"""The site of docs/: built as `make docs` builds it, opened from disk, without a server and without a network."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browsing import in_a_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(not (ROOT / "mkdocs.yml").is_file(), reason="needs the checkout"),
    pytest.mark.skipif(
        not all(map(find_spec, ("material", "mkdocstrings"))), reason="needs mkdocs-material and mkdocstrings (the docs extra)"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; mkdocs.yml makes every warning, of a link or an anchor that is not there, an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_there_and_nothing_else(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert pages <= built
    assert {"CHANGELOG.html", "CONTRIBUTING.html", "SECURITY.html", "benchmarks/results/index.html", "404.html"} < built - pages
    assert list(site.rglob("*.py")) == []


def test_links_above_docs_lead_to_pages_of_the_site(site: Path) -> None:
    assert 'href="SECURITY.html"' in (site / "extending.html").read_text(encoding="utf-8")
    assert 'href="extending.html#a-metric"' in (site / "CONTRIBUTING.html").read_text(encoding="utf-8")
    assert 'href="../evaluation.html' in (site / "decisions" / "0006-efficientnet.html").read_text(encoding="utf-8")


def test_the_reference_is_what_the_docstrings_say(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", (site / "python.html").read_text(encoding="utf-8"))
    for said in ("Measure accuracy, NLL and Brier score", "bytes of shape (n, channel, height, width)", "The number of features d."):
        assert said in page


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="?(?:https?:)?//[^>]*|(?:url\(|@import)\W*(?:https?:)?//[^)]*')
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert [(path.name, found) for path in files for found in loaded.findall(path.read_text(encoding="utf-8"))] == []


@in_a_browser
def test_a_word_is_found_without_a_server(site: Path, browser: "Browser") -> None:
    with browser.new_context() as context:
        context.set_default_timeout(60_000)
        sheet = context.new_page()
        asked: list[str] = []
        sheet.on("request", lambda request: asked.append(request.url))
        sheet.goto((site / "tutorials" / "add-a-score.html").as_uri())
        field = sheet.locator(".md-search__input")
        field.click()
        field.press_sequentially("mahalanobis")
        sheet.locator(".md-search-result__link[href*='evaluation.html']").first.wait_for()
        assert {url.partition(":")[0] for url in asked} <= {"file", "blob", "data"}


@in_a_browser
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_wide_tables_scroll_and_pages_do_not(site: Path, browser: "Browser", width: int, scheme: str) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:  # type: ignore[arg-type]
        context.set_default_timeout(60_000)
        sheet = context.new_page()
        colours = {}
        for page in ("index", "study", "cli", "python"):
            sheet.goto((site / f"{page}.html").as_uri())
            assert sheet.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
            colours[page] = sheet.evaluate("getComputedStyle(document.body).backgroundColor")
            if page == "study":
                wide = sheet.locator(".md-typeset__scrollwrap", has=sheet.locator("table")).nth(1)
                assert wide.evaluate("wrap => wrap.scrollWidth > wrap.clientWidth && getComputedStyle(wrap).overflowX") == "auto"
        light = {sum(map(int, re.findall(r"\d+", colour)[:3])) > 600 for colour in colours.values()}
        assert light == {scheme == "light"}
