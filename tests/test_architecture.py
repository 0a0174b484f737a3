"""Rules about the code itself that no single test would notice being broken."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gmmcli"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300
SIBLINGS = ("train", "evaluate", "report", "study", "importer", "watch")
WITHOUT_A_TEST_FILE: dict[str, str] = {}
"""Modules whose mirrored test file is missing on purpose, and why."""

pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="needs the checkout")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> set[str]:
    """The modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


UNPICKLERS = {"pickle", "pickletools", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TENSORS_ONLY = "torch.load, weights_only=True"
PICKLES_READ = {"metrics/features/weights.py": [TENSORS_ONLY], "importer/pickled.py": ["pickletools"]}
"""The one call that reads pickles, two files of known hash (docs/decisions/0004), and the one loop that reads them as data (0007)."""


def pickled(tree: ast.Module) -> Iterator[str]:
    """Every way in which this code would read or write a pickle."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (name for name in names if name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"torch.load", "torch.save", "torch.jit.load"}:
                safe = called == "torch.load" and "weights_only=True" in map(ast.unparse, node.keywords)
                yield TENSORS_ONLY if safe else called
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    yield "allow_pickle"
            if called in {"np.load", "numpy.load"} and "allow_pickle" not in {keyword.arg for keyword in node.keywords}:
                yield f"{called} without allow_pickle=False"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_pickled_and_pickles_are_read_in_two_places(path: Path) -> None:
    assert list(pickled(tree_of(path))) == PICKLES_READ.get(name_of(path), [])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "from pickletools import genops",
        "torch.load(f)",
        "torch.load(f, weights_only=True)",
        "torch.jit.load(f, weights_only=True)",
        "torch.save(x, f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f)",
    ],
)
def test_the_check_for_pickles_would_notice(code: str) -> None:
    assert list(pickled(ast.parse(code)))


CALL = "torch.load(path, map_location='cpu', weights_only=True)"


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, map_location='cpu')",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=sure)",
        "torch.load(path, True)",
        "torch.load(path, **{'weights_only': True})",
        f"{CALL}; {CALL}",
        f"{CALL}; torch.save(x, path)",
        f"{CALL}; import pickle",
    ],
)
def test_the_check_would_notice_any_other_pickle_where_one_is_read(code: str) -> None:
    read = PICKLES_READ["metrics/features/weights.py"]
    assert list(pickled(ast.parse(CALL))) == read
    assert list(pickled(ast.parse(code))) != read


def test_the_check_would_notice_the_same_call_in_another_file() -> None:
    code = (PACKAGE / "metrics" / "features" / "weights.py").read_text(encoding="utf-8")
    allowed = [path for path in SOURCES if list(pickled(ast.parse(code))) == PICKLES_READ.get(name_of(path), [])]
    assert list(map(name_of, allowed)) == ["metrics/features/weights.py"]


SPLITS_IN_MEMORY = {
    "self": "a replay buffer's own tensor, or a subject's split itself",
    "subject": "a subject's split itself",
    "run.buffer()": "a replay buffer",
    "self.buffer": "a replay buffer",
    "state.chains.buffer": "a replay buffer",
    "batch": "a training batch",
    "negatives": "the samples of a training step",
    "one": "outliers, which are made or resized in memory",
}
"""What has an attribute ``images`` outside data/, and what that is: no split's tensor of images."""


def images_read(tree: ast.Module) -> set[str]:
    """The expressions whose attribute ``images`` is read."""
    return {ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "images"}


def test_outside_data_the_images_of_a_split_are_read_by_batch_and_chunks_alone() -> None:
    """So that a set that does not fit in memory can stand behind a split."""
    read = {name: images_read(tree_of(path)) for path in SOURCES if not (name := name_of(path)).startswith("data/")}
    assert {name: found - set(SPLITS_IN_MEMORY) for name, found in read.items() if found - set(SPLITS_IN_MEMORY)} == {}
    assert set(SPLITS_IN_MEMORY) <= set().union(*read.values()), "an exception that is none any more"


@pytest.mark.parametrize("code", ["dataset.test.images", "subject.images.images", "split.images[rows]", "dataset.split(name).images"])
def test_the_check_of_images_would_notice(code: str) -> None:
    assert images_read(ast.parse(code)) - set(SPLITS_IN_MEMORY)


def test_no_source_file_is_long() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_every_module_has_its_test_file_and_every_exception_a_module() -> None:
    modules = {name_of(path) for path in SOURCES if not path.name.startswith("__")}
    expected = {name: Path(__file__).parent / Path(name).parent / f"test_{Path(name).name}" for name in modules}
    missing = {name for name, test in expected.items() if not test.is_file()}
    assert missing - set(WITHOUT_A_TEST_FILE) == set()
    assert set(WITHOUT_A_TEST_FILE) <= missing, "an exception that is none any more"


def files_of_the_tree(page: str) -> list[str]:
    """The files that the tree of docs/architecture.md names, below the package: those that a line begins with, in the folders above it."""
    (tree,) = re.findall(r"^src/gmmcli/\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    folders: list[str] = []
    found = []
    for line in tree.splitlines():
        depth, words = (len(line) - len(line.lstrip())) // 2 - 1, line.split()
        if words[0].endswith("/"):
            folders[depth:] = words[:1]
        found += ["".join(folders[:depth]) + name for name in takewhile(lambda word: word.endswith(".py"), words)]
    return found


def test_the_page_on_architecture_names_every_file_and_no_other() -> None:
    named = files_of_the_tree((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(name_of(path) for path in SOURCES if not path.name.startswith("__"))


PAGES = [ROOT / "CONTRIBUTING.md", *(path for path in (ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_of_ours_that_a_page_names_is_there(page: Path) -> None:
    """Paths as ``core/means.py: max_mahalanobis_means`` or ``tests/core/test_means.py``."""
    for name, thing in re.findall(r"`([a-z_]+/[\w/]+\.(?:py|toml))(?:: (\w+)[\w., ]*)?`", page.read_text(encoding="utf-8")):
        path = next((path for path in (PACKAGE / name, ROOT / name) if path.is_file()), None)
        assert path, name
        assert re.search(rf"\b{thing}\b", path.read_text(encoding="utf-8")), (name, thing)


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public classes, functions and methods without a docstring; a magic method's, and an override's, is its class's."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_and_all_that_is_public_have_docstrings(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree)
    assert list(undocumented(tree.body)) == []


@pytest.mark.parametrize("one", SIBLINGS)
def test_training_evaluation_report_study_and_importer_do_not_know_each_other(one: str) -> None:
    files = list((PACKAGE / one).rglob("*.py"))
    assert files
    others = tuple(f"gmmcli.{other}" for other in SIBLINGS if other != one)
    assert [(path, name) for path in files for name in imports_of(path) if name.startswith(others)] == []


def test_the_core_imports_torch_and_nothing_else() -> None:
    allowed = sys.stdlib_module_names | {"torch"}
    for path in (PACKAGE / "core").rglob("*.py"):
        foreign = {name for name in imports_of(path) if name.split(".")[0] not in allowed and not name.startswith("gmmcli.")}
        assert foreign == set(), path


@pytest.mark.skipif(find_spec("importlinter") is None, reason="import-linter is not installed")
def test_imports_go_one_way(tmp_path: Path) -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    linted = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "0 broken" in linted.stdout


def test_help_imports_no_torch() -> None:
    code = "import sys, gmmcli.cli.app as a\ntry: a.app(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_wheel_carries_recipes_studies_and_types() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    shelves = ["recipes", "studies"]
    assert targets["wheel"] == {"packages": ["src/gmmcli"], "force-include": {shelf: f"gmmcli/{shelf}" for shelf in shelves}}
    assert all(list((ROOT / shelf).glob("*.toml")) for shelf in shelves)
    assert (PACKAGE / "py.typed").is_file()
    assert not any((PACKAGE / shelf).exists() for shelf in shelves)  # one copy only, at the top


def test_commits_and_pushes_are_checked_as_in_ci() -> None:
    ci = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    hooks = re.findall(r"entry: make (.+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert " ".join(hooks).split() == ci == ["check", "test-realdata", "test"]
    assert re.search(r"^ .*/pip-audit\b.* --path .venv/", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)


def test_no_file_names_a_folder_of_one_machine() -> None:
    own = re.compile(rf"(?<![\w.])({re.escape(str(ROOT))}|{re.escape(str(Path.home()))}/|/home/\w+)")
    files = [*SOURCES, *(ROOT / "recipes").glob("*.toml"), *(ROOT / "studies").glob("*.toml"), *Path(__file__).parent.rglob("*.py")]
    assert [str(path) for path in files if own.search(path.read_text(encoding="utf-8"))] == []


def test_torchattacks_and_tensorboard_are_imported_by_who_needs_them_alone() -> None:
    """The one pins old versions of requests and urllib3, the other is optional, and both take their time."""
    modules = "gmmcli.attacks.algorithms, gmmcli.evaluate.robustness, gmmcli.evaluate.detection, gmmcli.train.loop"
    code = f"import sys, {modules}; sys.exit('torchattacks' in sys.modules or 'tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
