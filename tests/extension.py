"""A package of another author, installed for one test: modules, and the entry points that add their parts to gmmcli."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from gmmcli import registry


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, modules: Mapping[str, str], parts: Mapping[str, Mapping[str, str]]) -> None:
    """Put a package on the path, as pip would.

    Args:
        folder: where.
        monkeypatch: which takes it away again.
        modules: source text by module name.
        parts: ``{family: {name: "module:attribute"}}``.
    """
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    about = folder / "others-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    lines = [line for family, own in parts.items() for line in (f"[gmmcli.{family}]", *(f"{k} = {v}" for k, v in own.items()))]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)
    registry.installed.cache_clear()
