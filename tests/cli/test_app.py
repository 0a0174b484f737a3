import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import publishing
import pytest
import torch
import typer
from animals import Gmmc, Trained, invoke, leaves
from checkpoints import save_gmmc
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from gmmcli import __version__, errors
from gmmcli.attacks import audit
from gmmcli.cli.app import Boundary, app
from gmmcli.data.npz import Npz

COMMANDS = dict(leaves(get_command(app)))
HELP = """
import sys
from typer.testing import CliRunner
from gmmcli.cli.app import app
for words in {words}:
    result = CliRunner().invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.stdout, (words, result.output)
    assert "torch" not in sys.modules, words
"""


def test_every_help_works_and_imports_no_torch() -> None:
    groups = {name.split()[0] for name in COMMANDS}
    code = HELP.format(words=sorted({"", *groups, *COMMANDS}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example_of_itself(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert command.epilog
    assert command.epilog.startswith("Example")
    assert f"gmmc {name}" in command.epilog
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


DOCS = Path(__file__).parents[2] / "docs"
PAGE = """
import runpy
page = runpy.run_path({script!r})
print("\\n".join([page["HEAD"], *map(page["section"], page["COMMANDS"])]), end="")
"""


@pytest.mark.skipif(not DOCS.is_dir(), reason="needs the checkout")
def test_the_command_reference_is_what_the_commands_say() -> None:
    code = PAGE.format(script=str(DOCS / "cli.py"))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert re.findall(r"[\w-]+", written) == re.findall(r"[\w-]+", said), "make docs"
    assert set(re.findall(r"^## `gmmc(?: (.*))?`$", written, re.MULTILINE)) == {"", *COMMANDS}


@pytest.fixture
def copied(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The trained run once more, to be written into, on a machine without Inception weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("gmmcli.evaluate.classify.LEAST", 5)  # it has six
    return replace(trained, runs_dir=shutil.copytree(trained.runs_dir, tmp_path / "runs"))


def picture_beside(run: Trained) -> Path:
    """A grey picture."""
    path = run.runs_dir.parent / "picture.png"
    Image.new("L", (8, 8), 99).save(path)
    return path


def study_of(run: Trained) -> Path:
    """A study that consists of this run, and is done."""
    path = run.runs_dir.parent / "study.toml"
    path.write_text(f'name = "done"\n[[models]]\nrecipe = "{run.recipe}"\n')
    return path


JSON: dict[str, Callable[[Trained], list[object]]] = {
    "train": lambda run: ["train", "--resume", "--runs-dir", run.runs_dir],
    "watch": lambda run: ["watch", "--runs-dir", run.runs_dir],
    "sample": lambda run: ["sample", "--runs-dir", run.runs_dir, "--n", 2, "--steps", 1],
    "classify": lambda run: ["classify", picture_beside(run), "--runs-dir", run.runs_dir],
    "export": lambda run: ["export", "--runs-dir", run.runs_dir, "--no-onnx"],
    "import": lambda run: ["import", save_gmmc(run.runs_dir / "ckpt.pt", "zip"), "--runs-dir", run.runs_dir],
    "env": lambda run: ["env"],
    "eval accuracy": lambda run: ["eval", "accuracy", "--runs-dir", run.runs_dir],
    "eval calibrate": lambda run: ["eval", "calibrate", "--runs-dir", run.runs_dir],
    "eval ood": lambda run: ["eval", "ood", "--runs-dir", run.runs_dir, "--against", "uniform", "--score", "log_px"],
    "eval generate": lambda run: ["eval", "generate", "--runs-dir", run.runs_dir, "--features", "pixels"],
    "eval all": lambda run: ["eval", "all", "--runs-dir", run.runs_dir, "--against", "uniform"],
    "attack fgsm": lambda run: ["attack", "fgsm", "--runs-dir", run.runs_dir],
    "attack pgd": lambda run: ["attack", "pgd", "--runs-dir", run.runs_dir, "--steps", 2],
    "attack apgd": lambda run: ["attack", "apgd", "--runs-dir", run.runs_dir, "--steps", 2],
    "attack square": lambda run: ["attack", "square", "--runs-dir", run.runs_dir, "--queries", 5],
    "attack cw": lambda run: ["attack", "cw", "--runs-dir", run.runs_dir, "--steps", 2, "--searches", 1],
    "attack audit": lambda run: ["attack", "audit", "--runs-dir", run.runs_dir, "--n", 2],
    "restore": lambda run: ["restore", picture_beside(run), "--denoise", 0.1, "--runs-dir", run.runs_dir],
    "morph": lambda run: ["morph", "--from", "cat", "--to", "dog", "--n", 1, "--frames", 2, "--runs-dir", run.runs_dir],
    "tsne": lambda run: ["tsne", "--runs-dir", run.runs_dir, "--n", 20],
    "study": lambda run: ["study", study_of(run), "--out", run.runs_dir],
    "report": lambda run: ["report", "--study", run.runs_dir],
    "recipes new": lambda run: ["recipes", "new", run.runs_dir / "new.toml", "--data", "digits"],
    "recipes ls": lambda run: ["recipes", "ls"],
    "recipes show": lambda run: ["recipes", "show", run.recipe],
    "recipes check": lambda run: ["recipes", "check", run.recipe],
    "recipes diff": lambda run: ["recipes", "diff", run.recipe, "digits_gen"],
    "data ls": lambda run: ["data", "ls"],
    "data download": lambda run: ["data", "download", "mnist", "--root", run.runs_dir],
    "data check": lambda run: ["data", "check", run.recipe],
    "runs ls": lambda run: ["runs", "ls", "--runs-dir", run.runs_dir],
    "runs check": lambda run: ["runs", "check", "--runs-dir", run.runs_dir],
    "runs repair": lambda run: ["runs", "repair", "--runs-dir", run.runs_dir],
    "runs gc": lambda run: ["runs", "gc", "--runs-dir", run.runs_dir],
    "runs show": lambda run: ["runs", "show", "--runs-dir", run.runs_dir],
}


@pytest.fixture
def short_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit at one radius, of the attacks that its verdicts compare."""
    monkeypatch.setattr(
        audit, "SUITE", tuple(replace(attack, steps=2) for attack in audit.SUITE if attack.name in ("pgd-ce", "pgd-margin"))
    )
    monkeypatch.setattr(audit, "AT_FOCUS", {"pgd-margin x2 steps": replace(audit.TWICE, steps=4)})
    monkeypatch.setattr(audit, "EPS", (audit.FOCUS,))


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST as a few images in a folder, instead of 12 MB on the web."""
    publishing.mnist(monkeypatch, tmp_path / "server")


@pytest.mark.usefixtures("short_audit", "small_mnist")
@pytest.mark.parametrize("name", [*JSON, *sorted(COMMANDS.keys() - JSON.keys())])
def test_json_is_exactly_one_object_on_stdout(name: str, gmmc: Gmmc, copied: Trained) -> None:
    result = gmmc(*JSON[name](copied), "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert document["command"] == name


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.GmmcError("no", "try this"), 1),
        (errors.RunError("no", "try this"), 1),
        (errors.RecipeError("no", "try this"), 2),
        (errors.DataError("no", "try this"), 3),
        (errors.MissingPartError("no", "try this"), 4),
        (errors.DivergedError("no", "try this"), 5),
        (errors.CheckpointError("no", "try this"), 6),
    ],
)
def test_an_error_ends_as_sentence_hint_and_exit_code(error: errors.GmmcError, code: int) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["gmmc: error: no", "gmmc: try this"]


def test_a_stop_is_no_error_but_has_its_code() -> None:
    result = CliRunner().invoke(failing(errors.StoppedError("SIGINT after step 3")), ["fail"])
    assert (result.exit_code, result.stderr) == (130, "gmmc: stopped: SIGINT after step 3\n")


def test_ctrl_c_anywhere_else() -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt()), ["fail"])
    assert (result.exit_code, result.stderr) == (130, "gmmc: stopped\n")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_get_nothing_and_give_nothing_to_others(closed: str) -> None:
    """print() takes stdout for a stderr that is closed."""
    command = f"'{sys.executable}' -m gmmcli recipes show digits_gen --file --json {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_bug_shows_itself() -> None:
    result = CliRunner().invoke(failing(ZeroDivisionError("a bug")), ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def failing(error: BaseException) -> typer.Typer:
    """An app under the same boundary, whose one command raises."""
    toy = typer.Typer(cls=Boundary)

    @toy.command("fail")
    def fail() -> None:
        raise error

    @toy.callback()
    def options() -> None:
        """Make it a group."""

    return toy


def test_version(gmmc: Gmmc) -> None:
    assert gmmc("--version").stdout == f"gmmc {__version__}\n"


@pytest.mark.parametrize("words", [[], ["eval"], ["attack"], ["recipes"], ["data"], ["runs"]])
def test_without_a_verb_there_is_help(words: list[str], gmmc: Gmmc) -> None:
    assert "Usage" in gmmc(*words).output


@pytest.mark.parametrize(
    "words", [["fly"], ["train", "--speed", "9"], ["sample", "--n", "0"], ["sample", "--format", "jpg"], ["recipes", "show"]]
)
def test_wrong_usage_exits_2(words: list[str], gmmc: Gmmc) -> None:
    result = gmmc(*words)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "the output: Input/output error"),
    ],
)
def test_what_the_disk_refuses_is_a_sentence_and_exit_7(error: OSError, said: str) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == 7
    first, hint = result.stderr.splitlines()
    assert first == f"gmmc: error: {said}"
    assert hint.startswith("gmmc: ") and len(hint) > 20


def test_an_answer_to_a_full_disk_is_a_sentence_too() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "gmmcli", "recipes", "ls"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 7
    assert done.stderr.splitlines()[0] == "gmmc: error: the output: No space left on device"
    assert "Traceback" not in done.stderr


WRITING = ["sample", "eval accuracy", "eval calibrate", "eval ood", "eval generate", "attack cw", "attack audit", "tsne", "report"]


@pytest.mark.parametrize("name", WRITING)
def test_a_place_that_takes_no_file_is_found_before_anything_is_computed(
    name: str, gmmc: Gmmc, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for module in ("gmmcli.run.Run.model", "gmmcli.report.compare.compare"):
        monkeypatch.setattr(module, lambda *_, **__: pytest.fail("computed"))
    ending = ".html" if name == "report" else ".png"
    result = gmmc(*JSON[name](trained), "--out", tmp_path / "file" / f"x{ending}")
    assert (result.exit_code, result.stdout) == (7, "")
    assert f"{tmp_path / 'file'} is a file, not a folder" in result.stderr
    wrong = gmmc(*JSON[name](trained), "--out", tmp_path / "x.txt")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "or a folder" in wrong.stderr
    if name != "report":
        assert gmmc(*JSON[name](trained), "--runs-dir", tmp_path / "file").exit_code == 7


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_without_the_characters_gets_escapes(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for words in (["--help"], ["recipes", "ls"], ["watch", "--run", "猫"]):
        done = subprocess.run([sys.executable, "-m", "gmmcli", *words], capture_output=True, env=environment, text=False)
        assert b"UnicodeEncodeError" not in done.stderr
        assert done.returncode == (words[0] == "watch")
    assert rb"\u732b" in done.stderr


def name_oddly(patch: pytest.MonkeyPatch) -> None:
    """Let every archive have classes of control characters and markup."""
    odd = ("\x1b[31mcat\x07\u202e", "d\no\rg", "$x_^$ <b>")
    patch.setattr("gmmcli.data.npz.Npz.load", lambda source, load=Npz.load: replace(load(source), class_names=odd))


@pytest.fixture(scope="module")
def oddly_named(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run whose classes have such names."""
    runs_dir = tmp_path_factory.mktemp("odd") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        name_oddly(patch)
        run = invoke("train", trained.recipe, "--runs-dir", runs_dir)
    assert run.exit_code == 0, run.stderr
    return replace(trained, runs_dir=runs_dir)


@pytest.mark.usefixtures("short_audit")
@pytest.mark.parametrize("name", ["eval accuracy", "eval ood", "sample", "runs show", "tsne"])
def test_a_class_of_control_characters_does_not_reach_the_terminal(
    name: str, gmmc: Gmmc, oddly_named: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_oddly(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    result = gmmc(*JSON[name](oddly_named))
    assert result.exit_code == 0, result.stderr
    assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", result.stdout + result.stderr)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"
        ),
    ],
)
def test_out_of_memory_is_a_sentence_that_says_what_to_lower(error: Exception) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("gmmc: error: out of memory: ")
    assert "lower data.batch_size" in result.stderr


def test_another_runtime_error_is_a_bug_and_shows_itself() -> None:
    result = CliRunner().invoke(failing(RuntimeError("shape mismatch")), ["fail"])
    assert isinstance(result.exception, RuntimeError)
