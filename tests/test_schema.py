from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import pytest

from extension import install
from gmmcli.errors import RecipeError
from gmmcli.registry import PartError, Registry, installed
from gmmcli.schema import build, build_part
from gmmcli.types import Count, Share


@dataclass(frozen=True, kw_only=True)
class Round:
    kind: Literal["round"] = "round"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: float

    def __post_init__(self) -> None:
        if self.side > 9:
            raise ValueError(f"side {self.side} is too long")


class Shape(Protocol):
    @property
    def kind(self) -> str: ...


SHAPES: Registry[type[Shape]] = Registry("shapes", {"round": Round, "square": Square})
ROUND: Registry[type[Shape]] = Registry("only", {"round": Round})


@dataclass(frozen=True)
class Dot:
    x: int
    label: str = ""


@dataclass(frozen=True)
class Sheet:
    name: str
    shape: Annotated[Shape, SHAPES] = field(default_factory=Round)
    only: Annotated[Shape, ROUND] = field(default_factory=Round)
    dots: tuple[Dot, ...] = ()
    sizes: tuple[Count, ...] = (1,)
    share: Share = 0.5
    notes: dict[str, list[Any]] = field(default_factory=dict)
    spare: Annotated[Shape | None, SHAPES] = None


def test_what_is_not_said_has_its_default() -> None:
    assert build(Sheet, {"name": "a"}) == Sheet("a", Round(), Round(), (), (1,), 0.5, {})


def test_tables_become_dataclasses_and_lists_tuples() -> None:
    table = {
        "name": "a",
        "shape": {"kind": "square", "side": 2.0},
        "only": {"kind": "round", "radius": 3.0},
        "dots": [{"x": 1}, {"x": 2, "label": "b"}],
        "sizes": [2, 3],
        "share": 1.0,
        "notes": {"a.b": [1, "two", True, [3.5]]},
    }
    built = Sheet("a", Square(side=2.0), Round(radius=3.0), (Dot(1), Dot(2, "b")), (2, 3), 1.0, {"a.b": [1, "two", True, [3.5]]})
    assert build(Sheet, table) == built


@pytest.mark.parametrize("table", [Round(radius=3.0), Square(side=2.0), None])
def test_a_table_that_may_be_left_out_is_there_or_none(table: Round | Square | None) -> None:
    said = {} if table is None else {"spare": vars(table)}
    assert build(Sheet, {"name": "a"} | said).spare == table


def test_an_integer_will_do_for_a_float() -> None:
    assert build(Round, {"radius": 2}) == Round(radius=2.0)


@pytest.mark.parametrize("key", ["shape", "only"])
def test_a_table_that_does_not_say_its_kind_is_of_the_usual_one(key: str) -> None:
    assert getattr(build(Sheet, {"name": "a", key: {"radius": 4.0}}), key) == Round(radius=4.0)


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({}, "`name` is missing", ""),
        ({"nmae": "a"}, "unknown key `nmae`", "did you mean `name`?"),
        ({"name": "a", "zzz": 1}, "unknown key `zzz`", "valid here: name, shape, only, dots, sizes, share, notes, spare"),
        ({"name": 1}, "`name` must be a string, got 1", ""),
        ({"name": "a", "share": 2.0}, "`share` must be less than or equal to 1, got 2.0", ""),
        ({"name": "a", "share": float("nan")}, "`share` must be a finite number, got nan", ""),
        ({"name": "a", "share": "1"}, "`share` must be a number, got '1'", ""),
        ({"name": "a", "sizes": 3}, "`sizes` must be a list, got 3", ""),
        ({"name": "a", "sizes": [1, 0]}, "`sizes.1` must be greater than or equal to 1, got 0", ""),
        ({"name": "a", "notes": {"x": 3}}, "`notes.x` must be a list, got 3", ""),
        ({"name": "a", "dots": {"x": 1}}, "`dots` must be a list of tables, got {'x': 1}", "write [[dots]]"),
        ({"name": "a", "dots": [3]}, "`dots.0` must be a table, got 3", ""),
        ({"name": "a", "dots": [{"x": 1}, {"y": 1}]}, "unknown key `dots.1.y`", "valid here: x, label"),
        ({"name": "a", "dots": [{"label": "b"}]}, "`dots.0.x` is missing", ""),
        ({"name": "a", "spare": {"radius": 3.0}}, "`spare` needs a kind", "one of: round, square"),
        ({"name": "a", "spare": {"kind": "none"}}, "unknown kind 'none' for `spare`", "one of: round, square"),
        ({"name": "a", "spare": "none"}, "`spare` must be a table, got 'none'", ""),
        ({"name": "a", "shape": 3}, "`shape` must be a table, got 3", ""),
        ({"name": "a", "shape": {"kind": "sqare"}}, "unknown kind 'sqare' for `shape`", "did you mean 'square'?"),
        ({"name": "a", "shape": {"kind": 3}}, "unknown kind 3 for `shape`", "one of: round, square"),
        ({"name": "a", "only": {"kind": "square"}}, "unknown kind 'square' for `only`", "one of: round"),
        ({"name": "a", "shape": {"kind": "square"}}, "`shape.side` is missing", ""),
        ({"name": "a", "shape": {"kind": "square", "side": 10.0}}, "`shape`: side 10.0 is too long", ""),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_key(table: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        build(Sheet, table)
    assert (error.value.message, error.value.hint) == (message, hint)


def test_a_refusal_at_the_top_names_no_table() -> None:
    with pytest.raises(RecipeError, match=r"^side 10\.0 is too long$"):
        build(Square, {"side": 10.0})


def test_a_table_of_several_kinds_without_a_usual_one_needs_a_kind() -> None:
    @dataclass(frozen=True)
    class Choice:
        shape: Any

    Choice.__annotations__["shape"] = Annotated[Shape, SHAPES]
    with pytest.raises(RecipeError, match=r"^`shape` needs a kind$") as error:
        build(Choice, {"shape": {"radius": 1.0}})
    assert error.value.hint == "one of: round, square"


def test_where_a_table_stands_is_part_of_its_keys() -> None:
    with pytest.raises(RecipeError, match=r"^unknown key `a\.b\.rdius`$"):
        build(Round, {"rdius": 1.0}, "a.b")


FROZEN = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass part:\n    "
BAD_PARTS = {
    "a function": ("def part(): pass", "is not a frozen dataclass"),
    "not frozen": (FROZEN.replace("(frozen=True)", "") + "kind: str = 'oval'", "is not a frozen dataclass"),
    "no kind": (FROZEN + "area = 1", 'has no field `kind: Literal["oval"] = "oval"`'),
    "another kind": (FROZEN + "kind: str = 'egg'", 'has no field `kind: Literal["oval"] = "oval"`'),
    "no attributes": (FROZEN + "kind: str = 'oval'", "has no `area`, `__call__` (see "),
}


class Area(Shape, Protocol):
    @property
    def area(self) -> float: ...

    def __call__(self) -> None: ...


@pytest.mark.parametrize("fault", BAD_PARTS)
def test_an_installed_part_that_lacks_something_is_refused(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, (source, lack) = f"part_{fault.replace(' ', '_')}", BAD_PARTS[fault]
    install(tmp_path, monkeypatch, {module: source}, {"areas": {"oval": f"{module}:part"}})
    areas: Registry[type[Area]] = Registry("areas", {})
    with pytest.raises(PartError) as error:
        build_part(areas, Area, {"kind": "oval"}, "shape")
    monkeypatch.undo()
    installed.cache_clear()
    assert error.value.message.startswith("package others adds 'oval' to gmmcli's areas, and it ")
    assert lack in error.value.message
    assert (error.value.hint, error.value.exit_code) == ("mend others, or remove it", 2)


@dataclass(frozen=True)
class Move:
    from_: str = ""


def test_a_key_that_is_a_word_of_python_is_a_field_with_an_underscore() -> None:
    assert build(Move, {"from": "a"}) == Move("a")
    with pytest.raises(RecipeError, match="unknown key `from_`"):
        build(Move, {"from_": "a"})
    with pytest.raises(RecipeError, match="`from` must be a string"):
        build(Move, {"from": 1})
