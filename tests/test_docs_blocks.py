"""Every block of README and docs is executed, page by page, on tiny runs of digits; one that cannot be is marked with the reason."""

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tomli
import tomli_w
import typer
from animals import invoke
from digits import trained, undrawn
from pets import pets, saved, scene

from extension import install
from fences import PAGES, ROOT, Block, blocks, check, commands, lines, named, words
from gmmcli import registry
from gmmcli.errors import GmmcError, RecipeError
from gmmcli.recipe import Recipe
from gmmcli.run import Run

__all__ = ["trained", "undrawn"]
pytestmark = [
    pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="needs the checkout"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CODE = {"sh", "python", "toml", "json"}
LANGUAGES = CODE | {"text", "bibtex"}
FEW = 20
"""Images of an evaluation that the page gives no number of."""
PIPED = re.compile(r"(?<!\|)\| (\w+)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def runs(block: Block) -> bool:
    return not block.why and block.language in CODE


def small(command: Sequence[str]) -> list[str]:
    """The same command on few images, of a study the plan alone, and of a training two steps or so of a small network."""
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
    """Overrides that make a training take a second."""
    stages = {f"stages.{i}.{key}": value for i in range(len(recipe.stages)) for key, value in (("epochs", 1), ("ramp_epochs", 0))}
    backbone = {"depth": 10, "width": 1, "stem_stride": 2} if recipe.model.backbone.kind == "wide-resnet" else {}
    data = {"folder": {"source.size": 8, "batch_size": 8}, "digits": {"batch_size": 600}}.get(recipe.data.source.kind, {})
    named = {"model.backbone": backbone, "data": data, "chains": {"fresh_steps": 2}}
    return stages | {f"{table}.{key}": value for table, keys in named.items() for key, value in keys.items()}


PANDAS: Any = ModuleType("pandas")
"""Pretended: it does not come with gmmcli."""
PANDAS.json_normalize = lambda rows: SimpleNamespace(rows=rows)


class Reader:
    """Follows a page in a folder, as one who types and pastes what it says."""

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}
        """What the page's Python has defined."""

    def follow(self, block: Block) -> None:
        """Execute a block in its language."""
        getattr(self, block.language)(block)

    def sh(self, block: Block) -> None:
        """In this process; the output of a command may go to a file."""
        for line in lines(block.text):
            program, *rest = words(line)
            assert program == "gmmc", f"{block.where}: mark the block, or teach the test: {line}"
            *asked, to, path = rest if rest[-2:-1] == [">"] else [*rest, "", ""]
            done = invoke(*small(asked))
            assert done.exit_code == 0, f"{block.where}: {line}\n{done.output}"
            if to:
                Path(path).write_text(done.stdout)

    def python(self, block: Block) -> None:
        """A block that begins with the name of a module is that module, and ``installed``; others share their names."""
        if module := module_of(block):
            importlib.import_module(module)
        else:
            with pytest.MonkeyPatch.context() as patch:
                if "import pandas" in block.text:
                    patch.setitem(sys.modules, "pandas", PANDAS)
                exec(compile(block.text, block.where, "exec"), self.here)

    def toml(self, block: Block) -> None:
        """A package's entry points, a study, a recipe, or tables that some recipe could have."""
        document = tomli.loads(block.text)
        if "project" in document:
            for group, parts in document["project"].get("entry-points", {}).items():
                for name in parts:
                    (point,) = registry.installed(group).select(name=name)
                    point.load()
        elif "models" in document:
            Path("study.toml").write_text(block.text)
            done = invoke("study", "study.toml", "--dry-run")
            assert done.exit_code == 0, f"{block.where}: {done.output}"
        elif "name" in document:
            Path(f"{document['name']}.toml").write_text(block.text)
            Recipe.loads(block.text, block.where)
        else:
            Recipe.loads(tomli_w.dumps(merged(Recipe.load("digits_gen").document(), document)), block.where)

    def json(self, block: Block) -> None:
        """Only read."""
        json.loads(block.text)


def merged(document: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """The document with these keys, those of its tables one by one."""
    return document | {
        key: merged(document[key], value) if isinstance(value, dict) and key in document else value for key, value in tables.items()
    }


def module_of(block: Block) -> str:
    """The module that a block of Python is: ``# my_score.py`` is its first line."""
    first, _, _ = block.text.partition("\n")
    return first[2:-3] if block.language == "python" and first.startswith("# ") and first.endswith(".py") else ""


@pytest.fixture
def package(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package that a page writes, if it does, is installed."""
    modules, parts = {name: block.text for block in blocks(page) if (name := module_of(block))}, dict[str, dict[str, str]]()
    for document in (tomli.loads(block.text) for block in blocks(page) if block.language == "toml"):
        for group, own in document.get("project", {}).get("entry-points", {}).items():
            parts.setdefault(group.removeprefix("gmmcli."), {}).update(own)
    if modules:
        install(tmp_path, monkeypatch, modules, parts)
    yield
    registry.installed.cache_clear()


@pytest.fixture
def follow(undrawn: None, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """Follows a page where runs/ has the runs that pages name, and my/images and photos/ pictures.

    Nothing is downloaded, there are no weights of feature networks, figures stay empty, and a step of a training is said to take a tenth of
    a second.
    """
    for run in ("digits_dis", "digits_gen", "study-digits/2026-01-01T000000Z-digits_gen"):
        shutil.copytree(trained.path, tmp_path / "runs" / (run if "/" in run else f"2026-01-01T000000Z-{run}"))
    pets(tmp_path / "my" / "images")
    saved(scene(), tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    for name in ("GMMC_RUN", "GMMC_RUNS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GMMC_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("gmmcli.metrics.features.efficientnet.default_weights", lambda: None)
    monkeypatch.setattr("gmmcli.draft.fit.step_seconds", lambda *_: 0.1)

    def run_all(page: Path) -> dict[str, Any]:
        reader = Reader()
        for block in blocks(page):
            if runs(block):
                reader.follow(block)
        return reader.here

    return run_all


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
@pytest.mark.usefixtures("package")
def test_every_command_and_option_that_a_page_names_is_there(page: Path) -> None:
    for line in named(page):
        assert not set(PIPED.findall(line)) - {"tee", "head"}, f"what is this piped into? {line}"
        for command in commands(line):
            check(command)


def of_the_readme(here: dict[str, Any], said: str) -> None:
    assert here["images"].shape == (8, 1, 8, 8) and len(here["verdicts"]) == 8


def of_the_page_on_python(here: dict[str, Any], said: str) -> None:
    assert here["labels"].tolist() == [3, 3, 3, 8, 8, 8]
    assert len(here["paths"]) == len(here["verdicts"]) == 1
    assert here["logits"].shape == (6, 10) and here["accuracy"]["n"] == 100
    assert {row["command"] for row in here["table"].rows} == {"eval accuracy", "eval ood", "attack pgd"}
    assert "no class 'no such class' among the 10 of this run" in said


AFTERWARDS = {"README.md": of_the_readme, "docs/api.md": of_the_page_on_python}
"""What is true of a page's names and output when it has been followed."""


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("page", [page for page in PAGES if any(runs(block) for block in blocks(page))], ids=name_of)
def test_a_page_can_be_followed_from_its_first_block_to_its_last(
    page: Path, follow: Callable[[Path], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    here = follow(page)
    if check_names := AFTERWARDS.get(name_of(page)):
        check_names(here, capsys.readouterr().out)


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
        Reader().follow(Block("a page:1", language, text, ""))


def test_fences_are_found_indented_and_marked(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("- a\n  ```sh\n  gmmc \\\n    env\n  ```\n<!-- not run: needs a GPU -->\n```python\nif 1:\n    pass\n```\n")
    first, second = blocks(page)
    assert (first.language, lines(first.text), first.why) == ("sh", ["gmmc    env"], "")
    assert (second.language, second.text, second.why) == ("python", "if 1:\n    pass\n", "needs a GPU")
