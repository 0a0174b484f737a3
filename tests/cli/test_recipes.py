import json
from pathlib import Path

import pytest
from animals import Gmmc, Trained

from gmmcli.recipe import Recipe, shipped


def test_ls_shows_every_shipped_recipe_with_its_first_line(gmmc: Gmmc) -> None:
    lines = gmmc("recipes", "ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped())
    first = shipped()["digits_gen"].read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    assert next(line for line in lines if line.startswith("digits_gen ")).endswith(f"  {first}")


def test_show_is_a_recipe_again_with_overrides_applied(gmmc: Gmmc) -> None:
    result = gmmc("recipes", "show", "digits_gen", "--set", "seed=5")
    assert Recipe.loads(result.stdout) == Recipe.load("digits_gen", ["seed=5"])


def test_show_file_is_the_file_itself(gmmc: Gmmc, trained: Trained) -> None:
    assert gmmc("recipes", "show", trained.recipe, "--file").stdout == trained.recipe.read_text()


def test_show_json_has_every_key(gmmc: Gmmc) -> None:
    document = json.loads(gmmc("recipes", "show", "digits_gen", "--json").stdout)
    assert document["recipe"] == json.loads(json.dumps(Recipe.load("digits_gen").document()))


def test_check_of_good_recipes(gmmc: Gmmc, trained: Trained) -> None:
    assert gmmc("recipes", "check", trained.recipe, "digits_gen").stdout == f"{trained.recipe}: valid\ndigits_gen: valid\n"


def test_check_stops_at_the_first_bad_one(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(trained.recipe.read_text().replace("batch_size", "batchsize"))
    result = gmmc("recipes", "check", trained.recipe, bad)
    assert result.exit_code == 2
    assert result.stderr == f"gmmc: error: unknown key `data.batchsize` ({bad})\ngmmc: did you mean `batch_size`?\n"


def test_diff_shows_both_values_of_what_differs(gmmc: Gmmc, trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(trained.recipe.read_text().replace("epochs = 2", "epochs = 3").replace("margin = 2.0", "beta = 0.25"))
    result = gmmc("recipes", "diff", trained.recipe, other)
    assert result.stdout.splitlines() == [
        "stages.0.epochs: 2 -> 3",
        "stages.0.objective.beta: 0.5 -> 0.25",
        "stages.0.objective.margin: 2.0 -> 0.0",
    ]


def test_diff_of_other_kinds_shows_what_the_one_lacks(gmmc: Gmmc, trained: Trained) -> None:
    values = json.loads(gmmc("recipes", "diff", trained.recipe, "digits_gen", "--json").stdout)["values"]
    assert values["data.source.kind"] == ["npz", "digits"]
    assert values["data.source.validation"] == [0.1, None]


def test_a_recipe_is_equal_to_itself(gmmc: Gmmc) -> None:
    assert gmmc("recipes", "diff", "digits_gen", "recipes/digits_gen.toml").stdout == ""


@pytest.mark.parametrize("words", [["show", "digit_gen"], ["check", "digit_gen"], ["diff", "digits_gen", "digit_gen"]])
def test_an_unknown_recipe_exits_2_with_the_nearest(words: list[str], gmmc: Gmmc) -> None:
    result = gmmc("recipes", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean digits_gen?" in result.stderr
