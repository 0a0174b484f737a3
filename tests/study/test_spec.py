from pathlib import Path
from typing import Any

import pytest

from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe, shipped
from gmmcli.study.spec import MOST_EVALUATIONS, MOST_TRAININGS, Entry, Study, Training

RECIPE = """
name = "mine"
[[stages]]
epochs = 3
objective = { kind = "center-regression" }
"""
STUDY = """
name = "digits"
about = "What holds on digits."
seeds = [1, 2]
set = ["log.every=7"]
evaluations = ["eval calibrate"]

[[models]]
recipe = "mine.toml"

[[models]]
name = "GMMC (Gen)"
recipe = "digits_gen"
set = ["optim.learning_rate=0.25"]
seeds = [3]
evaluations = ['eval ood --against "folder:my images"']
"""


def write(folder: Path, text: str = STUDY) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(RECIPE)
    path = folder / "study.toml"
    path.write_text(text)
    return path


def trainings(path: Path, *overrides: str) -> list[Training]:
    study, found = Study.load(path, overrides)
    assert found == path
    return study.trainings(path.parent)


def models(text: str) -> str:
    """A study of these models."""
    return f'name = "some"\n{text}'


def test_a_study_is_models_times_seeds_in_the_order_of_seeds(tmp_path: Path) -> None:
    found = trainings(write(tmp_path))
    assert [(one.model, one.position, one.recipe.seed) for one in found] == [
        ("mine", 0, 1),
        ("mine", 0, 2),
        ("GMMC (Gen)", 1, 3),
    ]


def test_a_training_is_the_recipe_under_the_studys_the_models_and_its_own_overrides(tmp_path: Path) -> None:
    path = write(tmp_path)
    first, second, third = trainings(path)
    assert first.recipe == Recipe.load(tmp_path / "mine.toml", ["log.every=7", "seed=1"])
    assert second.recipe == Recipe.load(tmp_path / "mine.toml", ["log.every=7", "seed=2"])
    assert third.recipe == Recipe.load("digits_gen", ["log.every=7", "optim.learning_rate=0.25", "seed=3"])
    for one in (first, second, third):  # what the child is told means the same
        assert Recipe.load(one.source, one.overrides) == one.recipe
    assert (first.source, third.source) == (str(tmp_path / "mine.toml"), "digits_gen")


def test_a_run_is_asked_what_all_are_asked_and_what_its_model_is_asked(tmp_path: Path) -> None:
    first, _, third = trainings(write(tmp_path))
    assert first.evaluations == (("eval", "calibrate"),)
    assert third.evaluations == (("eval", "calibrate"), ("eval", "ood", "--against", "folder:my images"))


def test_what_takes_long_is_asked_of_the_first_seed_of_each_model_alone(tmp_path: Path) -> None:
    text = 'seeds = [5, 3]\nonce = ["attack audit"]\n[[models]]\nrecipe = "mine.toml"\nevaluations = ["eval ood"]\n'
    found = trainings(write(tmp_path, models(text + '[[models]]\nrecipe = "digits_dis"\nseeds = [7]\nonce = ["tsne"]')))
    assert {(one.model, one.recipe.seed): [" ".join(words) for words in one.evaluations] for one in found} == {
        ("mine", 3): ["eval ood"],
        ("mine", 5): ["eval ood", "attack audit"],
        ("digits_dis", 7): ["attack audit", "tsne"],
    }


def test_overrides_from_outside_are_for_every_model(tmp_path: Path) -> None:
    assert {one.recipe.data.batch_size for one in trainings(write(tmp_path), "data.batch_size=5")} == {5}


def test_a_file_beside_the_study_comes_before_a_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "there", models('[[models]]\nrecipe = "digits_gen"'))
    (path.parent / "digits_gen").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    (one,) = trainings(path)
    assert one.recipe.name == "mine"


def test_every_combination_of_what_varies_is_a_model_named_after_it() -> None:
    entry = Entry("digits_gen", "gen", ("a=1",), {"optim.learning_rate": [0.5, 0.25], "data.flip": [True], "model.head.kind": ["lda"]})
    assert list(entry.variants()) == [
        ("gen, learning_rate 0.5, flip True, kind lda", ["a=1", "optim.learning_rate=0.5", "data.flip=true", 'model.head.kind="lda"']),
        (
            "gen, learning_rate 0.25, flip True, kind lda",
            ["a=1", "optim.learning_rate=0.25", "data.flip=true", 'model.head.kind="lda"'],
        ),
    ]
    assert list(Entry("digits_gen").variants()) == [("digits_gen", [])]


def test_variants_train_what_they_say_each_in_its_place(tmp_path: Path) -> None:
    varied = """[[models]]\nrecipe = "mine.toml"\nname = "m"
    vary = { "stages.0.epochs" = [1, 2], "optim.milestones" = [[], [3, 5]], "compute.precision" = ["bf16"] }"""
    found = trainings(write(tmp_path, models(varied + '\n[[models]]\nrecipe = "digits_dis"')))
    assert [(one.position, one.recipe.epochs, one.recipe.optim.milestones) for one in found[:4]] == [
        (0, 1, ()),
        (1, 1, (3, 5)),
        (2, 2, ()),
        (3, 2, (3, 5)),
    ]
    assert found[3].model == "m, epochs 2, milestones [3, 5], precision bf16"
    assert found[4].position == 4
    assert all(Recipe.load(one.source, one.overrides) == one.recipe for one in found)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('nmae = "x"', "unknown key `nmae`", "did you mean `name`?"),
        ('name = "x"', "`models` is missing", ""),
        (models('[[models]]\nname = "x"'), "`models.0.recipe` is missing", ""),
        (models('[[models]]\nrecipe = "digits_gen"\nsede = 1'), "unknown key `models.0.sede`", "did you mean `seeds`?"),
        (models('[[models]]\nrecipe = "digits_gen"\nset = "a=1"'), "`models.0.set` must be a list, got 'a=1'", ""),
        (models('[[models]]\nrecipe = "digits_gen"\nseeds = [-1]'), "`models.0.seeds.0` must be greater than or equal to 0, got -1", ""),
        (models('[[models]]\nrecipe = "digits_gen"\nvary = { "log.every" = 3 }'), "`models.0.vary.log.every` must be a list, got 3", ""),
        ("name = ", "is not valid TOML", ""),
        ("a = " + "[" * 500 + "]" * 500, "is not valid TOML", ""),
        (models('seeds = []\n[[models]]\nrecipe = "digits_gen"'), "a study needs at least one seed", ""),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_name(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as error:
        Study.load(path)
    assert message in error.value.message
    assert str(path) in error.value.message
    assert error.value.hint == hint


HALF, MORE = tuple(range(MOST_TRAININGS // 2)), tuple(range(MOST_TRAININGS // 2 + 1))
LARGE: dict[str, dict[str, Any]] = {
    "1,001 trainings are more than a study's 1,000; divide it": {"models": (Entry("a", seeds=MORE), Entry("b", seeds=HALF))},
    "1,002 trainings are more": {"models": (Entry("a"), Entry("b")), "seeds": MORE},
    "1,500 trainings are more": {"models": (Entry("a", vary={"x": [*HALF], "y": [1, 2, 3]}),)},
    "125,000,000 trainings are more": {"models": (Entry("a", vary={key: [*HALF] for key in "xyz"}),)},
    "101 evaluations of a training are more than a study's 100": {
        "models": (Entry("a"), Entry("b", once=("tsne",))),
        "evaluations": ("tsne",) * MOST_EVALUATIONS,
    },
}


@pytest.mark.parametrize("message", LARGE)
def test_a_study_that_is_too_large_is_refused_before_it_is_multiplied_out(message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Study("large", **LARGE[message])


def test_a_study_may_be_as_large_as_the_limits() -> None:
    study = Study("large", (Entry("a", seeds=HALF), Entry("b", seeds=HALF)), evaluations=("tsne",) * MOST_EVALUATIONS)
    assert sum(len(entry.seeds) for entry in study.models) == MOST_TRAININGS


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[[models]]\nrecipe = "digit_gen"', "no recipe digit_gen", "did you mean digits_gen?"),
        ('[[models]]\nrecipe = "digits_gen"\nset = ["sede=1"]', "unknown key `sede`", "did you mean `seed`?"),
        (
            '[[models]]\nrecipe = "digits_gen"\n[[models]]\nrecipe = "digits_gen"\nname = "again"',
            "models 'digits_gen' and 'again' of study some have the same recipe",
            "remove one",
        ),
        (
            '[[models]]\nrecipe = "digits_gen"\nname = "m"\n[[models]]\nrecipe = "digits_dis"\nname = "m"',
            "study some has model 'm' twice with seed 1",
            "rename one",
        ),
        (
            '[[models]]\nrecipe = "digits_gen"\nname = "\\u001b[31mred"',
            r"model '\x1b[31mred' of study some has control characters in its name",
            "rename it",
        ),
        (
            '[[models]]\nrecipe = "digits_gen"\nvary = { name = ["a\\u009b2J"] }',
            r"model 'digits_gen, name a\x9b2J' of study some has control characters in its name",
            "rename it",
        ),
        (
            '[[models]]\nrecipe = "digits_gen"\nevaluations = ["tsne --data \'a\\u0007\'"]',
            r"""evaluation "tsne --data 'a\x07'" has control characters""",
            "leave them out",
        ),
        (
            '[[models]]\nrecipe = "digits_gen"\nseeds = [2, 2]',
            "study some has model 'digits_gen' twice with seed 2",
            "rename one",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        trainings(write(tmp_path, models(text)))
    assert message in error.value.message
    assert error.value.hint == hint


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^no study zzz: neither a file nor the name of a shipped study$"):
        Study.load("zzz")


@pytest.mark.parametrize("name", shipped("studies"))
def test_every_shipped_study_is_named_like_its_file_and_asks_for_shipped_recipes(name: str) -> None:
    study, path = Study.load(name)
    assert study.name == name
    assert study.about
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert {one.source for one in study.trainings(path.parent)} <= shipped().keys()
