"""Every block of README and docs is executed, page by page, on tiny runs of digits; one that cannot be is marked with the reason."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import typer
from digits import trained, undrawn
from pets import pets

from fences import PAGES, ROOT, Block, blocks, check, commands, lines, named
from gmmcli import registry
from gmmcli.errors import GmmcError, RecipeError
from gmmcli.run import Run
from reader import Reader

__all__ = ["trained", "undrawn"]
pytestmark = [
    pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="needs the checkout"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CODE = {"sh", "python", "toml", "json"}
LANGUAGES = CODE | {"text", "bibtex"}
PIPED = re.compile(r"(?<!\|)\| (\w+)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def runs(block: Block) -> bool:
    return not block.why and block.language in CODE


@pytest.fixture
def reader(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """In a folder that is empty but for the package that the page writes, if it does."""
    monkeypatch.chdir(tmp_path)
    yield Reader(blocks(page), tmp_path, monkeypatch)
    registry.installed.cache_clear()


@pytest.fixture
def prepared(undrawn: None, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runs/ has the runs that pages name, and my/images pictures of two classes.

    Nothing is downloaded, there are no weights of feature networks, figures stay empty, and a step of a training is said to take a tenth of
    a second.
    """
    for run in ("2026-01-01T000000Z-digits_dis", "2026-01-01T000001Z-digits_gen", "study-digits/2026-01-01T000000Z-digits_gen"):
        shutil.copytree(trained.path, tmp_path / "runs" / run)
    pets(tmp_path / "my" / "images")
    for name in ("GMMC_RUN", "GMMC_RUNS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GMMC_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda: None)
    monkeypatch.setattr("gmmcli.train.plan.step_seconds", lambda *_: 0.1)


@every_page
def test_every_block_has_a_language_and_what_is_not_run_a_reason(page: Path) -> None:
    assert [block.where for block in blocks(page) if block.language not in LANGUAGES] == []
    assert len(re.findall("^ *<!-- not run", page.read_text(encoding="utf-8"), re.MULTILINE)) == sum(
        bool(block.why) for block in blocks(page)
    )
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, block.where, "exec")
        elif block.language == "toml":
            tomli.loads(block.text)


@every_page
@pytest.mark.usefixtures("reader")
def test_every_command_and_option_that_a_page_names_is_there(page: Path) -> None:
    for line in named(page):
        assert not set(PIPED.findall(line)) - {"tee", "head"}, f"what is this piped into? {line}"
        for command in commands(line):
            check(command)


def of_the_readme(here: dict[str, Any], said: str) -> None:
    assert here["images"].shape == (8, 1, 8, 8) and len(here["verdicts"]) == 8


def of_the_page_on_python(here: dict[str, Any], said: str) -> None:
    assert here["labels"].tolist() == [3, 3, 3, 8, 8, 8]
    assert len(here["paths"]) == len(here["verdicts"]) == 12
    assert here["logits"].shape == (6, 10) and here["accuracy"]["n"] == 100
    assert {row["command"] for row in here["table"].rows} == {"eval accuracy", "eval ood", "attack pgd"}
    assert "no class 'no such class' among the 10 of this run" in said


AFTERWARDS = {"README.md": of_the_readme, "docs/api.md": of_the_page_on_python}
"""What is true of a page's names and output when it has been followed."""


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("page", [page for page in PAGES if any(runs(block) for block in blocks(page))], ids=name_of)
def test_a_page_can_be_followed_from_its_first_block_to_its_last(page: Path, reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(page):
        if runs(block):
            reader.follow(block)
    if check_names := AFTERWARDS.get(name_of(page)):
        check_names(reader.here, capsys.readouterr().out)


def test_the_pages_whose_names_are_checked_are_there() -> None:
    assert {*AFTERWARDS} <= {name_of(page) for page in PAGES}


@pytest.mark.parametrize(
    "line",
    [
        "gmmc evil accuracy",
        "gmmc eval accurate",
        "gmmc eval accuracy --m 3",
        "gmmc tsne mine",
        "gmmc train digits_gen --set optim.lr=1",
        "torchrun --nproc-per-node 2 -m -- gmmcli sample --m 4",
        "srun bash -c 'RANK=0 exec gmmc train \"$0\" --m 4' digits_gen",
        "cd here && make dmeo",
    ],
)
def test_a_command_that_is_not_there_is_noticed(line: str) -> None:
    with pytest.raises((AssertionError, RecipeError, typer.TyperException)):
        for command in commands(line):
            check(command)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("sh", "pip install gmmcli"),
        ("sh", "gmmc sample --class 11"),
        ("toml", "[log]\nvalidate_evry = 3"),
        ("toml", 'name = "mine"\n[data]\nsource = { kind = "ditigs" }'),
        ("toml", 'name = "mine"\n[[models]]\nrecipe = "digits_gne"'),
        ("json", "{"),
        ("python", "from gmmcli import open_nur"),
    ],
)
def test_a_block_that_does_not_run_is_noticed(language: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, GmmcError, ImportError, ValueError)):
        Reader([], tmp_path, monkeypatch).follow(Block("a page:1", language, text, ""))


def test_fences_are_found_indented_and_marked(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("- a\n  ```sh\n  gmmc \\\n    env\n  ```\n<!-- not run: needs a GPU -->\n```python\nif 1:\n    pass\n```\n")
    first, second = blocks(page)
    assert (first.language, lines(first.text), first.why) == ("sh", ["gmmc    env"], "")
    assert (second.language, second.text, second.why) == ("python", "if 1:\n    pass\n", "needs a GPU")
