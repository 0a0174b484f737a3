"""A package of another author, installed for one test: modules, and the entry points that add their parts to gmmcli."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli

from gmmcli import registry

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@dataclass(frozen=True)
class Example:
    """A section of the page that shows a part."""

    heading: str
    module: str
    code: str
    entry: str

    @property
    def parts(self) -> dict[str, dict[str, str]]:
        """By family, as ``extension.install`` takes them."""
        return {group.removeprefix("gmmcli."): names for group, names in tomli.loads(self.entry)["project"]["entry-points"].items()}


def examples() -> list[Example]:
    """Every section with Python: its first line is the module's name, and a block of TOML has the entry point."""
    found = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
        if code := blocks.get("python"):
            found.append(Example(section.partition("\n")[0], code.removeprefix("# ").partition(".py\n")[0], code, blocks["toml"]))
    return found


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, modules: Mapping[str, str], parts: Mapping[str, Mapping[str, str]]) -> None:
    """Put a package on the path, as pip would.

    Args:
        folder: where.
        monkeypatch: which takes it away again.
        modules: source text by module name.
        parts: ``{family: {name: "module:attribute"}}``.
    """
    for name, source in modules.items():
        monkeypatch.delitem(sys.modules, name, raising=False)  # another test's module of this name
        (folder / f"{name}.py").write_text(source)
    about = folder / "others-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    lines = [line for family, own in parts.items() for line in (f"[gmmcli.{family}]", *(f"{k} = {v}" for k, v in own.items()))]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)
    registry.installed.cache_clear()


def install_example(heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the example of one section of docs/extending.md; the test is skipped where the page is not there."""
    if not PAGE.is_file():
        pytest.skip("needs the checkout")
    (example,) = (example for example in examples() if example.heading == heading)
    install(folder, monkeypatch, {example.module: example.code}, example.parts)
