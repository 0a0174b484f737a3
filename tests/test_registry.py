from collections.abc import Iterator
from pathlib import Path

import pytest

from extension import install
from gmmcli import registry
from gmmcli.errors import RecipeError
from gmmcli.registry import Registry


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test installs is gone after it."""
    yield
    registry.installed.cache_clear()


def fruit() -> Registry[str]:
    return Registry("fruit", {"apple": "red", "pear": "green"})


def test_own_parts_are_found_by_name() -> None:
    assert list(fruit()) == ["apple", "pear"]
    assert fruit()["pear"] == "green"
    assert len(fruit()) == 2


def test_an_installed_package_adds_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"tropics": "kiwi = 'brown'"}, {"fruit": {"kiwi": "tropics:kiwi"}, "nuts": {"brazil": "tropics:no"}})
    assert list(fruit()) == ["apple", "pear", "kiwi"]
    assert fruit()["kiwi"] == fruit().find("kiwi", "fruit") == "brown"


def test_names_are_listed_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"thorns": "raise RuntimeError"}, {"fruit": {"kiwi": "thorns:kiwi"}})
    assert "kiwi" in fruit()
    assert "plum" not in fruit()


def test_own_parts_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"orchard": "apple = 'blue'"}, {"fruit": {"apple": "orchard:apple"}})
    assert list(fruit()) == ["apple", "pear"]
    assert fruit()["apple"] == "red"


def test_a_name_that_two_packages_add_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        install(tmp_path / place, monkeypatch, {f"tree_{place}": f"plum = {place!r}"}, {"fruit": {"plum": f"tree_{place}:plum"}})
        (tmp_path / place / "others-1.0.dist-info").rename(tmp_path / place / f"{place}-1.0.dist-info")  # two packages
    assert list(fruit()) == ["apple", "pear", "plum"] and len(fruit()) == 3
    assert fruit()["plum"] in ("one", "other")


@pytest.mark.parametrize("source", ["import no_such_module", "pass", "kiwi = 1 / 0"], ids=["module", "attribute", "bug"])
def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    module = f"broken{len(source)}"
    install(tmp_path, monkeypatch, {module: source}, {"fruit": {"kiwi": f"{module}:kiwi"}})
    with pytest.raises(RecipeError, match="package others adds 'kiwi' to gmmcli's fruit, and cannot be imported"):
        fruit()["kiwi"]


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(KeyError):
        fruit()["plum"]
    with pytest.raises(RecipeError, match="no fruit 'aple'") as raised:
        fruit().find("aple", "fruit")
    assert raised.value.hint == "did you mean apple?"
    with pytest.raises(RecipeError) as raised:
        fruit().find("zzz", "fruit")
    assert raised.value.hint == "give one of apple, pear"


@pytest.mark.parametrize("part", ["7", "str", "None"])
def test_what_is_no_object_of_the_familys_kind_is_refused(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours: Registry[str] = Registry("fruit", {"apple": "red"}, str)
    install(
        tmp_path, monkeypatch, {"tropics": f"kiwi = {part}\nlime = 'green'"}, {"fruit": {"kiwi": "tropics:kiwi", "lime": "tropics:lime"}}
    )
    assert colours["lime"] == "green"
    with pytest.raises(RecipeError, match="package others adds 'kiwi' to gmmcli's fruit, which is no str"):
        colours["kiwi"]
