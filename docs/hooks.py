"""What mkdocs does not do by itself for the site (mkdocs.yml): ``make docs``.

Pages link as on GitHub, also to files above docs/: those become pages of the site, and links are made to fit. Search works without a
server too: there a browser lets a page neither fetch the index nor start a worker from a file, so both come as a script.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ABOVE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/results/*.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
OFFLINE = """var __search = {{
  index: Promise.resolve({index}),
  worker: URL.createObjectURL(new Blob([{worker}], {{type: "text/javascript"}}))
}}
"""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages above docs/."""
    for path in (path for pattern in ABOVE for path in sorted(ROOT.glob(pattern))):
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make links fit the site, where docs/ and what is above it are one folder; README.md is its front."""
    uri = page.file.src_uri
    here = posixpath.dirname(uri if (ROOT / uri).is_file() else f"docs/{uri}")

    def on_the_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[1]))
        target = "index.md" if target == "README.md" else target.removeprefix("docs/")
        return posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return LINK.sub(on_the_site, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Load the index before the script that searches it."""
    script = posixpath.relpath("search/search_index.js", posixpath.dirname(page.url) or ".")
    return output.replace("</head>", f'<script src="{script}"></script></head>', 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Write the index and the worker as one script."""
    site = Path(config.site_dir)
    (worker,) = (site / "assets" / "javascripts" / "workers").glob("search.*.js")
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    script = OFFLINE.format(index=index, worker=json.dumps(worker.read_text(encoding="utf-8")))
    (site / "search" / "search_index.js").write_text(script, encoding="utf-8")
