"""Tables become frozen dataclasses: every key known, every value strictly of its type, or one sentence that says what is not."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gmmcli.errors import LONGEST_QUOTED, RecipeError, quoted, shortened
from gmmcli.hints import SYNONYMS, listed, nearest, plainly
from gmmcli.registry import PartError, Registry

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def build(table_type: Any, table: dict[str, Any], path: str = "") -> Any:
    """Build a dataclass from its table.

    Args:
        table_type: the dataclass. A field that may be of several kinds is annotated with their protocol and registry,
            ``Annotated[protocols.Head, HEADS]``, and takes the one whose name is the table's ``kind``.
        table: as TOML gives it.
        path: where the table stands, for messages: "" at the top.

    Raises:
        RecipeError: an unknown or missing key, a value of another type, or one that the dataclass refuses with ValueError.
        PartError: an unknown kind, or an installed part that lacks what its protocol asks for.
    """
    hints = typing.get_type_hints(table_type, include_extras=True)
    fields = {key_of(f): f for f in dataclasses.fields(table_type)}
    for key in table:
        if key not in fields:
            near = nearest(key, fields) or _elsewhere(table_type, key, path)
            hint = f"did you mean `{near}`?" if near else f"valid here: {listed(fields)}"
            raise RecipeError(f"unknown key `{_dotted(path, key)}`", hint)
    values = {}
    for name, spec in fields.items():
        if name in table:
            value, usual = table[name], spec.default_factory
            if isinstance(value, dict) and callable(usual) and hasattr(usual(), "kind"):
                value = {"kind": usual().kind} | value  # a table that does not say its kind is of the usual one
            values[spec.name] = _value(hints[spec.name], value, _dotted(path, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RecipeError(f"`{_dotted(path, name)}` is missing")
    try:
        return table_type(**values)
    except ValueError as error:
        raise RecipeError(f"`{path}`: {error}" if path else str(error)) from error


def key_of(field: dataclasses.Field[Any]) -> str:
    """The key of a field: its name, without the underscore of one that is a word of Python, as ``from_``."""
    return field.name.removesuffix("_")


def build_part(registry: Registry[Any], protocol: type, table: dict[str, Any], path: str) -> Any:
    """Build the part of a registry whose name is the table's ``kind``; raises RecipeError like ``build``."""
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in registry:
        near = nearest(str(kind), registry)
        hint = f"did you mean {near!r}?" if near else f"one of: {listed(registry)}"
        if kind is None:
            raise RecipeError(f"`{path}` needs a kind", hint)
        raise PartError(f"unknown kind {quoted(kind)} for `{path}`", hint, registry.group)
    part = registry[kind]
    if lack := _lack(part, kind, protocol):
        package = registry.package(kind)
        raise PartError(f"package {package} adds {kind!r} to gmmcli's {registry.family}, and it {lack}", f"mend {package}, or remove it")
    return build(part, table, path)


def _below(table_type: Any, path: str) -> Iterator[str]:
    """The dotted keys of the tables within a table, of every kind that these may be of."""
    for name, hint in typing.get_type_hints(table_type, include_extras=True).items():
        found = registry_of(hint)
        inner = f"{_dotted(path, name.removesuffix('_'))}{'.0' * (typing.get_origin(hint) is tuple)}"
        for table in [*found[0].builtin.values()] if found else [hint, *typing.get_args(hint)[:1]]:
            if dataclasses.is_dataclass(table):
                yield from (f"{inner}.{key_of(field)}" for field in dataclasses.fields(table))
                yield from _below(table, inner)


def _elsewhere(table_type: Any, key: str, path: str) -> str | None:
    """The least deep key below a table that is called so, or often called so; None where there is none."""
    found = (dotted for dotted in _below(table_type, path) if dotted.rpartition(".")[2] in (key, SYNONYMS.get(key)))
    return min(found, key=lambda dotted: dotted.count("."), default=None)


def registry_of(hint: Any) -> tuple[Registry[Any], type] | None:
    """The registry of a field that may be of several kinds, and the protocol of these; None for another field."""
    if typing.get_origin(hint) is not typing.Annotated:
        return None
    protocol, *about = typing.get_args(hint)
    protocol = (typing.get_args(protocol) or (protocol,))[0]  # a field that may be left out: TOML has no null
    return next(((registry, protocol) for registry in about if isinstance(registry, Registry)), None)


def asked_for(protocol: type) -> list[str]:
    """What a protocol asks for: its properties and methods, those of its bases included."""
    members = [(name, member) for base in protocol.__mro__ if base.__module__ != "typing" for name, member in vars(base).items()]
    asked = (name for name, member in members if isinstance(member, (property, types.FunctionType)))
    return [name for name in asked if name == "__call__" or not name.startswith("_")]


def _lack(part: Any, kind: str, protocol: type) -> str | None:
    """What an installed part lacks to be one, as the end of a sentence; None where it lacks nothing."""
    if not (isinstance(part, type) and dataclasses.is_dataclass(part) and vars(part)["__dataclass_params__"].frozen):
        return "is not a frozen dataclass"
    fields = {f.name: f for f in dataclasses.fields(part)}
    if "kind" not in fields or fields["kind"].default != kind:
        return f'has no field `kind: Literal["{kind}"] = "{kind}"`'
    offered = {*fields, *(name for base in part.__mro__ if not getattr(base, "_is_protocol", False) for name in vars(base))}
    missing = [f"`{name}`" for name in asked_for(protocol) if name not in offered]
    return f"has no {', '.join(missing)} (see {protocol.__module__}.{protocol.__name__})" if missing else None


def _value(hint: Any, value: Any, path: str) -> Any:
    """Check one value against its field's type; tables become dataclasses."""
    if found := registry_of(hint):
        return build_part(*found, _table(value, path), path)
    if dataclasses.is_dataclass(hint):
        return build(hint, _table(value, path), path)
    item = typing.get_args(hint)[:1]
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(item[0]):
        if not isinstance(value, list):
            raise RecipeError(f"`{path}` must be a list of tables, got {quoted(value)}", f"write [[{path}]]")
        return tuple(_value(item[0], entry, f"{path}.{i}") for i, entry in enumerate(value))
    try:  # through JSON, whose strict mode takes a list for a tuple
        return _adapter(hint).validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        at = "".join(f".{part}" for part in first["loc"])
        raise RecipeError(f"`{path}{at}` {plainly(first['msg'])}, got {quoted(first['input'])}") from error


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    """Pydantic's check of a type, whose making takes longer than its use."""
    return TypeAdapter(hint, config=STRICT)


def _table(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"`{path}` must be a table, got {quoted(value)}")
    return value


def _dotted(path: str, key: str) -> str:
    key = shortened(key, LONGEST_QUOTED)
    return f"{path}.{key}" if path else key
