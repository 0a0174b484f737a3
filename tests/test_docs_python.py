"""Every Python block of README.md and docs/api.md is executed, page by page, on a tiny run of digits."""

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from digits import trained
from PIL import Image

from gmmcli.run import Run

__all__ = ["trained"]
ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/api.md"]
pytestmark = [
    pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="needs the checkout"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def executed(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Executes a page's blocks where runs/ holds a run of digits_gen and photos/ a picture; pandas, not installed, is pretended."""
    shutil.copytree(trained.path, tmp_path / "runs" / "2026-01-01T000000Z-digits_gen")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 30)).save(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GMMC_RUN", raising=False)
    monkeypatch.delenv("GMMC_RUNS_DIR", raising=False)
    pandas = ModuleType("pandas")
    pandas.__dict__["json_normalize"] = lambda rows: SimpleNamespace(rows=rows)
    monkeypatch.setitem(sys.modules, "pandas", pandas)

    def execute(page: str) -> dict[str, Any]:
        here: dict[str, Any] = {}
        for block in blocks(page):
            exec(compile(block, page, "exec"), here)
        return here

    return execute


def test_the_readme_shows_samples_and_verdicts(executed: Any) -> None:
    here = executed("README.md")
    assert here["images"].shape == (8, 1, 8, 8) and len(here["verdicts"]) == 8


def test_the_page_on_python_does_what_it_says(executed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    here = executed("docs/api.md")
    assert here["labels"].tolist() == [3, 3, 3, 8, 8, 8]
    assert len(here["paths"]) == len(here["verdicts"]) == 1
    assert here["logits"].shape == (6, 10) and here["accuracy"]["n"] == 100
    assert {row["command"] for row in here["table"].rows} == {"eval accuracy", "eval ood", "attack pgd"}
    assert "no class 'no such class' among the 10 of this run" in capsys.readouterr().out
