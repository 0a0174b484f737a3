"""Write the tables of keys in docs/recipes.md from the docstrings of the recipe's fields: ``make docs``. A test holds the page to them."""

import ast
import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

from gmmcli.recipe import Recipe
from gmmcli.schema import key_of, registry_of
from gmmcli.types import INTEGERS, NUMBERS

BEGIN = "<!-- The tables from here on are made by `make docs` from docstrings; do not edit. -->"
END = "<!-- End of the tables. -->"
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
NAMES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def docstrings(table: type) -> dict[str, str]:
    """What stands below each field of a dataclass, its bases' fields included."""
    found = {}
    for base in reversed([base for base in table.__mro__ if dataclasses.is_dataclass(base)]):
        (definition,) = ast.parse(dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = prose(text)
    return found


def prose(docstring: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(docstring.split()).replace("``", "`")


def tables_in(hint: Any) -> list[type]:
    """The dataclasses that a field's type allows, those of a registry that come with gmmcli; none where it is a plain value."""
    if found := registry_of(hint):
        return [*found[0].builtin.values()]
    parts = typing.get_args(hint)[:1] or (hint,)
    return [part for part in parts if dataclasses.is_dataclass(part)]


def type_and_range(hint: Any) -> tuple[str, str]:
    """A plain field's type and its bounds, in words."""
    if typing.get_origin(hint) is typing.Literal:
        return "choice", ", ".join(f"`{json.dumps(choice)}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        first, *others = typing.get_args(hint)
        kind, bounds = type_and_range(first)
        return f"list of {kind}s" if others == [...] else f"list of {1 + len(others)} {kind}s", bounds
    if typing.get_origin(hint) is typing.Annotated:
        kind, *bounds = typing.get_args(hint)
        own = [bound for bound in bounds if bound not in (INTEGERS, NUMBERS)]  # those hold everywhere, and the page says so once
        limits = [(SIGNS[name], limit) for bound in own for name, limit in dataclasses.asdict(bound).items()]
        return NAMES[kind], ", ".join(f"{sign} {limit}" for sign, limit in limits)
    return NAMES[hint], ""


def default_of(field: dataclasses.Field[Any]) -> str:
    """A field's default as TOML writes it."""
    if field.default is dataclasses.MISSING:
        return "required"
    return f"`{json.dumps(field.default)}`"


def rows(table: type) -> Iterator[tuple[str, ...]]:
    """Key, type, default, range and meaning of each plain field; ValueError where a field has no docstring."""
    hints, meanings = typing.get_type_hints(table, include_extras=True), docstrings(table)
    for field in dataclasses.fields(table):
        if field.name == "kind" or tables_in(hints[field.name]):
            continue
        if field.name not in meanings:
            raise ValueError(f"{table.__module__}.{table.__name__}.{field.name} has no docstring below it")
        kind, bounds = type_and_range(hints[field.name])
        yield f"`{key_of(field)}`", kind, default_of(field), bounds, meanings[field.name]


class Place(typing.NamedTuple):
    """Where a table stands in a recipe, the dataclasses that it may be, and the kind that it is by default."""

    path: str
    choices: list[type]
    usual: str | None


def places(table: type, path: str = "") -> Iterator[Place]:
    """The tables inside a table, each followed by those inside it."""
    hints = typing.get_type_hints(table, include_extras=True)
    for field in dataclasses.fields(table):
        if inner := tables_in(hints[field.name]):
            listed = typing.get_origin(hints[field.name]) is tuple
            usual = getattr(field.default_factory(), "kind", None) if callable(field.default_factory) else None
            yield (place := Place(f"{path}{field.name}{'.0' if listed else ''}", inner, usual))
            for choice in inner:
                yield from places(choice, f"{place.path}.")


def section(place: Place) -> str:
    """A table's kinds, and the keys of all of them."""
    lines, merged, several = [], dict[tuple[str, ...], list[str]](), len(place.choices) > 1
    for choice in place.choices:
        kind = getattr(choice, "kind", None)
        first, file = str(choice.__doc__).split("\n\n")[0], choice.__module__.removeprefix("gmmcli.").replace(".", "/")
        summary, usual = f"{prose(first)} `{file}.py`", " (default)" if several and kind == place.usual else ""
        lines.append(f"- `kind = {json.dumps(kind)}`{usual}: {summary}" if kind else summary)
        for row in rows(choice):
            merged.setdefault(row, []).append(str(kind))
    if merged:
        columns = ["key", *(["kinds"] if several else []), "type", "default", "range", "meaning"]
        lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (key, *others), kinds in merged.items():
        shown = ", ".join(kinds) if len(kinds) < len(place.choices) else "all"
        cells = [key, *([shown] if several else []), *others]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join([f"### `{place.path}`" if place.path else "### Top level", "", *lines, ""])


def tables() -> Iterator[str]:
    """A section for each table of a recipe; where the same table stands in two places, the deeper points to the other."""
    found = [Place("", [Recipe], None), *places(Recipe)]
    for place in found:
        first = min((other.path for other in found if other.choices == place.choices), key=len)
        yield section(place) if first == place.path else f"### `{place.path}`\n\nThe keys of [`{first}`](#{first.replace('.', '')}).\n"


def page(text: str) -> str:
    """The page with its tables written anew between the two marks."""
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n" + "\n".join(tables()) + f"\n{END}{after}"


if __name__ == "__main__":
    path = Path(__file__).with_name("recipes.md")
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
