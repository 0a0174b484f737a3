"""``gmmc recipes new`` on a few pictures: the file, what is refused, what is asked."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from animals import Gmmc, Trained
from PIL import Image

from gmmcli.data.folder import Folder
from gmmcli.recipe import Recipe


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of colour pictures in odd sizes and formats, in the current directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog", "fox")):
        folder = tmp_path / "my pets" / name
        folder.mkdir(parents=True)
        for i in range(9):
            pixels = rng.integers(0, 60, (17 + i, 40 - i, 3)) + np.eye(3)[k] * 180
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.{('png', 'jpg', 'webp')[i % 3]}")
    return tmp_path / "my pets"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each step takes a tenth of a second."""
    monkeypatch.setattr("gmmcli.train.plan.step_seconds", lambda *_: 0.1)


class Terminal(StringIO):
    """A terminal that says these lines."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Terminal]:
    """Make gmmc ask a terminal, which answers with these lines; it keeps the questions."""

    def connect(lines: str) -> Terminal:
        asked = Terminal()
        monkeypatch.setattr("gmmcli.cli.recipes_new.sys", SimpleNamespace(stdin=Terminal(lines), stderr=asked))
        return asked

    return connect


@pytest.mark.usefixtures("pets")
def test_the_recipe_of_a_folder_trains(gmmc: Gmmc, tmp_path: Path) -> None:
    done = gmmc("recipes", "new", "small.toml", "--data", "folder:my pets", "--size", 8, "--time", "1s")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["wrote small.toml", "  3 classes, 18 images to train on, 8 x 8, colour."]
    assert lines[-4:] == [
        "  gmmc data check small.toml",
        "  gmmc train small.toml",
        "  gmmc classify PICTURE",
        "  gmmc sample --class all --per-class 8",
    ]
    recipe = Recipe.load(tmp_path / "small.toml")
    assert (recipe.name, recipe.data.source) == ("small", Folder(path="my pets", size=8, channels=3, validation=0.2))
    assert [stage.objective.kind for stage in recipe.stages] == ["center-regression", "contrastive-divergence"]
    checked = gmmc("data", "check", "small.toml")
    assert (checked.exit_code, "18 images" in checked.stdout) == (0, True)
    trained = gmmc(
        "train", "small.toml", "--set", "stages.0.epochs=2", "--set", "stages.1.epochs=2", "--set", "stages.1.ramp_epochs=1", "--json", "-q"
    )
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["step"] == 4


@pytest.mark.usefixtures("timed")
def test_files_that_cannot_be_read_are_told_and_the_rest_is_gone_on_with(gmmc: Gmmc, pets: Path) -> None:
    whole = (pets / "cat" / "0.png").read_bytes()
    for name, content in {"cat/empty.png": b"", "dog/text.jpg": b"no picture", "fox/half.png": whole[: len(whole) // 2]}.items():
        (pets / name).write_bytes(content)
    done = gmmc("recipes", "new", "--data", "my pets", "--for", "classify")
    assert done.exit_code == 0, done.stderr
    assert "warning: 3 files cannot be read; see `gmmc data check 'my pets'`" in done.stderr
    assert done.stdout.splitlines()[1].startswith("  3 classes, 18 images to train on, ")
    assert "  gmmc data check mine.toml --fix" in done.stdout.splitlines()
    assert gmmc("data", "check", "mine.toml", "--fix").exit_code == 0
    assert len(Recipe.load("mine.toml").data.source.load().train) == 18
    assert "cannot be read" not in gmmc("recipes", "new", "--data", "my pets", "--force").stderr


@pytest.mark.usefixtures("timed")
def test_a_class_of_which_nothing_can_be_read_is_an_error(gmmc: Gmmc, pets: Path) -> None:
    for file in (pets / "dog").iterdir():
        file.write_bytes(b"")
    done = gmmc("recipes", "new", "--data", "my pets")
    assert (done.exit_code, "no image of class 'dog'" in done.stderr) == (3, True)


@pytest.mark.usefixtures("pets", "timed")
def test_json_has_the_recipe_and_what_was_found(gmmc: Gmmc) -> None:
    done = gmmc("recipes", "new", "--data", "my pets", "--for", "classify", "--json", "--quiet")
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["command"], answer["path"]) == (1, "recipes new", "mine.toml")
    assert answer["recipe"] == json.loads(json.dumps(Recipe.load("mine.toml").document()))
    values = answer["values"]
    assert (values["classes"], values["side"], values["channels"], values["settings_of"]) == (["cat", "dog", "fox"], 20, 3, "folder_dis")
    assert values["total_seconds"] == pytest.approx(0.1 * sum(values["n_steps"]))
    assert values["next"] == ["gmmc data check mine.toml", "gmmc train mine.toml", "gmmc classify PICTURE"]


@pytest.mark.usefixtures("pets", "timed")
def test_a_file_is_overwritten_only_by_force(gmmc: Gmmc, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("precious")
    refused = gmmc("recipes", "new", "--data", "my pets")
    assert refused.exit_code == 7
    assert refused.stderr == "gmmc: error: mine.toml is there already\ngmmc: give another name, or overwrite it with --force\n"
    assert (tmp_path / "mine.toml").read_text() == "precious"
    assert gmmc("recipes", "new", "--data", "my pets", "--force").exit_code == 0
    assert Recipe.load("mine.toml").name == "mine"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "gmmc recipes new needs --data"),
        (["mine"], 2, "gmmc recipes new needs --data"),
        (["mine", "--data", "digits"], 2, "mine does not end in .toml\ngmmc: call it mine.toml"),
        (["--data", "digits", "--time", "soon"], 2, "--time 'soon' is no length of time\ngmmc: say 10m, 8h or 2d"),
        (["--data", "digits", "--time", "0m"], 2, "--time '0m' is no length of time"),
        (["--data", "digits", "--size", 32], 2, "--size 32: these images are 8 x 8"),
        (["--data", "nowhere"], 2, "no dataset 'nowhere'"),
        (["--data", "folder:nowhere"], 3, "no folder or .zip at nowhere"),
        (["no/such/place.toml", "--data", "folder:\udcff"], 2, "`data.source.path`"),
        (["my pets/cat/0.png/a.toml", "--data", "digits"], 7, "is a file, not a folder"),
    ],
)
@pytest.mark.usefixtures("pets", "timed")
def test_what_will_not_do_is_said_and_nothing_written(words: list[object], code: int, said: str, gmmc: Gmmc, tmp_path: Path) -> None:
    done = gmmc("recipes", "new", *words)
    assert (done.exit_code, done.stdout, list(tmp_path.glob("**/*.toml"))) == (code, "", []), done.stderr
    assert said in done.stderr


@pytest.mark.usefixtures("pets", "timed")
def test_it_asks_four_questions_and_asks_again(gmmc: Gmmc, tmp_path: Path, terminal: Callable[[str], Terminal]) -> None:
    (tmp_path / "taken.toml").write_text("")
    asked = terminal("nowhere\nmy pets\nplay\ngen\nlong\n2h\ntaken.toml\npets.toml\n")
    done = gmmc("recipes", "new")
    assert done.exit_code == 0, done.stderr
    said = asked.getvalue()
    assert [said.count(question) for question in ("Where are your images?", "What is the model for", "How long may", "What shall")] == [
        2
    ] * 4
    for refused in (
        "no dataset 'nowhere'",
        "'play' is none of classify, generate and both",
        "'long' is no length of time",
        "taken.toml is there already",
    ):
        assert refused in said + done.stderr
    recipe = Recipe.load("pets.toml")
    assert (recipe.log.best, recipe.data.source) == ("samples", Folder(path="my pets", size=20, validation=0.2))


@pytest.mark.usefixtures("pets", "timed")
def test_empty_answers_are_the_usual_and_what_was_given_is_not_asked(gmmc: Gmmc, terminal: Callable[[str], Terminal]) -> None:
    asked = terminal("my pets\n\n")
    assert gmmc("recipes", "new", "a.toml", "--for", "classify").exit_code == 0
    assert (asked.getvalue().count("?"), len(Recipe.load("a.toml").stages)) == (2, 1)


@pytest.mark.usefixtures("pets")
def test_no_answer_is_no_recipe(gmmc: Gmmc, terminal: Callable[[str], Terminal]) -> None:
    terminal("my pets\n")
    done = gmmc("recipes", "new")
    assert (done.exit_code, Path("mine.toml").exists()) == (2, False)
    assert "was given no answer" in done.stderr


@pytest.fixture
def beside(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's data, in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    return trained.recipe.with_suffix(".npz")


@pytest.mark.usefixtures("timed")
def test_from_a_model_that_knows_the_classes_only_generation_is_left_to_learn(gmmc: Gmmc, trained: Trained, beside: Path) -> None:
    done = gmmc("recipes", "new", "--data", f"npz:{beside}", "--init-from", trained.path)
    assert done.exit_code == 0, done.stderr
    recipe, theirs = Recipe.load("mine.toml"), Recipe.load(trained.path / "recipe.toml")
    assert (recipe.init.from_, recipe.model) == (str(trained.path), theirs.model)
    assert [stage.objective.kind for stage in recipe.stages] == ["contrastive-divergence"]
    assert gmmc("train", "mine.toml", "--set", "stages.0.epochs=1", "--set", "stages.0.ramp_epochs=0", "-q").exit_code == 0


@pytest.mark.usefixtures("timed")
def test_a_model_that_does_not_fit_is_refused(gmmc: Gmmc, trained: Trained, beside: Path) -> None:
    done = gmmc("recipes", "new", "--data", "digits", "--init-from", trained.path)
    assert (done.exit_code, "that model has 3 classes, and these images have 10" in done.stderr) == (2, True)
    other = gmmc("recipes", "new", "--data", f"npz:{beside}", "--init-from", trained.path, "--size", 9)
    assert (other.exit_code, "that model has images of 8 x 8 with 1 channels" in other.stderr) == (2, True)
    assert not Path("mine.toml").exists()


@pytest.mark.usefixtures("pets", "timed")
def test_pictures_are_made_as_the_model_to_start_from_knows_them(gmmc: Gmmc, trained: Trained) -> None:
    done = gmmc("recipes", "new", "--data", "folder:my pets", "--init-from", trained.path)
    assert done.exit_code == 0, done.stderr
    recipe = Recipe.load("mine.toml")
    assert recipe.data.source == Folder(path="my pets", size=8, channels=1, validation=0.2)
    assert len(recipe.stages) == 1  # of the same names
