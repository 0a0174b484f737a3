"""Tables become frozen dataclasses: every key known, every value strictly of its type, or one sentence that says what is not."""

import dataclasses
import json
import types
import typing
from difflib import get_close_matches
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gmmcli.errors import RecipeError

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def build(table_type: Any, table: dict[str, Any], path: str = "") -> Any:
    """Build a dataclass from its table.

    Args:
        table_type: the dataclass; a field of several dataclasses takes the one whose ``kind`` the table names.
        table: as TOML gives it.
        path: where the table stands, for messages: "" at the top.

    Raises:
        RecipeError: an unknown or missing key, a value of another type, or one that the dataclass refuses with ValueError.
    """
    hints = typing.get_type_hints(table_type, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(table_type)}
    for key in table:
        if key not in fields:
            near = get_close_matches(key, fields, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(fields)}"
            raise RecipeError(f"unknown key `{_dotted(path, key)}`", hint)
    values = {}
    for name, spec in fields.items():
        if name in table:
            value, usual = table[name], spec.default_factory
            if isinstance(value, dict) and callable(usual) and hasattr(usual(), "kind"):
                value = {"kind": usual().kind} | value  # a table that does not say its kind is of the usual one
            values[name] = _value(hints[name], value, _dotted(path, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RecipeError(f"`{_dotted(path, name)}` is missing")
    try:
        return table_type(**values)
    except ValueError as error:
        raise RecipeError(f"`{path}`: {error}" if path else str(error)) from error


def _value(hint: Any, value: Any, path: str) -> Any:
    """Check one value against its field's type; tables become dataclasses, chosen by ``kind`` where there are several."""
    if isinstance(hint, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not types.NoneType]  # TOML has no null: left out is None
        return build(_of_kind(choices, value, path), value, path)
    if dataclasses.is_dataclass(hint):
        one = _of_kind((hint,), value, path) if isinstance(value, dict) and "kind" in value and hasattr(hint, "kind") else hint
        return build(one, _table(value, path), path)
    item = typing.get_args(hint)[:1]
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(item[0]):
        if not isinstance(value, list):
            raise RecipeError(f"`{path}` must be a list of tables, got {value!r}", f"write [[{path}]]")
        return tuple(_value(item[0], entry, f"{path}.{i}") for i, entry in enumerate(value))
    try:  # through JSON, whose strict mode takes a list for a tuple
        return TypeAdapter(hint, config=STRICT).validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        wanted = (
            first["msg"]
            .replace("Input should be", "must be")
            .replace("a valid integer", "an integer")
            .replace("a valid array", "a list")
            .replace("a valid ", "a ")
        )
        at = "".join(f".{part}" for part in first["loc"])
        raise RecipeError(f"`{path}{at}` {wanted}, got {first['input']!r}") from error


def _of_kind(choices: typing.Sequence[Any], value: Any, path: str) -> Any:
    kinds = {choice.kind: choice for choice in choices}
    kind = _table(value, path).get("kind")
    if isinstance(kind, str) and kind in kinds:
        return kinds[kind]
    near = get_close_matches(str(kind), kinds, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(kinds)}"
    raise RecipeError(f"`{path}` needs a kind" if kind is None else f"unknown kind {kind!r} for `{path}`", hint)


def _table(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"`{path}` must be a table, got {value!r}")
    return value


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
