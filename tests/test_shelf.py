import re
from pathlib import Path

import pytest

from gmmcli.errors import RecipeError
from gmmcli.recipe import Recipe
from gmmcli.shelf import find, shipped
from gmmcli.storage import is_file

MINIMAL = """
name = "minimal"
[[stages]]
epochs = 2
objective = { kind = "contrastive-divergence", margin = 2.0 }
"""


def test_find_knows_shipped_names_also_as_paths_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("digits_gen") == find("recipes/digits_gen.toml") == shipped()["digits_gen"]


def test_find_prefers_the_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("recipes/digits_gen.toml")
    mine.parent.mkdir()
    mine.write_text(MINIMAL)
    assert find("recipes/digits_gen.toml") == mine
    assert Recipe.load(mine, ["seed=9"]).seed == 9


@pytest.mark.parametrize("name", ["digit_gen", "recipes/digits_gne.toml", "elsewhere/digits_gen.toml", "digits_gen.toml"])
def test_find_suggests_the_nearest_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=f"^no recipe {re.escape(name)}: ") as error:
        Recipe.load(name)
    assert error.value.hint == "did you mean digits_gen?"


def test_find_of_a_name_like_no_other_points_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"^no recipe zzz: ") as error:
        find("zzz")
    assert error.value.hint.startswith("those that come with gmmc: ")
    assert "digits_gen" in error.value.hint


@pytest.mark.parametrize("name", ["n" * 5000, "a/" * 3000 + "a", "a\0b", "", ".", "/dev/zero"])
def test_a_name_that_no_file_can_have_is_none_and_no_accident(name: str) -> None:
    assert not is_file(Path(name))
    with pytest.raises(RecipeError, match=r"^no recipe ") as error:
        find(name)
    assert len(error.value.message) < 200


@pytest.mark.parametrize("name", shipped("studies"))
def test_studies_lie_on_a_shelf_of_their_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped("studies")[name] == find(name, "studies") == find(f"studies/{name}.toml", "studies")
    assert shipped("studies")[name].parent.name == "studies"
    with pytest.raises(RecipeError, match=r"neither a file nor the name of a shipped recipe$"):
        find(f"studies/{name}.toml")


def test_a_study_that_is_not_there_is_called_a_study() -> None:
    with pytest.raises(RecipeError, match=r"^no study digits_gen: neither a file nor the name of a shipped study$"):
        find("digits_gen", "studies")
