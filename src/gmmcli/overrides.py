"""Dotted keys of a recipe's document: ``--set optim.learning_rate=3e-4``."""

import re
from collections.abc import Sequence
from typing import Any

import tomli

from gmmcli.errors import LONGEST_QUOTED, RecipeError, quoted, shortened

ABSENT = object()


def flatten(document: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values: ``{"stages.0.epochs": 3, ...}``."""
    if isinstance(document, (list, tuple)) and any(isinstance(item, dict) for item in document):
        document = dict(enumerate(document))
    if not isinstance(document, dict):
        return {prefix: document}
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def apply(document: dict[str, Any], override: str) -> None:
    """Set one dotted key in place; a changed ``kind`` clears its table, whose other keys belonged to the old kind."""
    if not _is_unicode(override):
        raise RecipeError(f"--set {quoted(override)} is not UTF-8, which a recipe is", "rename what it names")
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {quoted(override)} is not of the form key=value", "say, --set optim.learning_rate=3e-4")
    value, named = _value(text), f"--set {shortened(dotted, LONGEST_QUOTED)}"
    table: Any = document
    for key in keys[:-1]:
        table = _item(table, key, named) if isinstance(table, list) else table.setdefault(key, {})
        if not isinstance(table, (dict, list)):
            raise RecipeError(f"{named}: {shortened(key, LONGEST_QUOTED)} is a value, not a table")
    if isinstance(table, list):
        _item(table, keys[-1], named)
        table[int(keys[-1])] = value
        return
    if keys[-1] == "kind" and table.get("kind", value) != value:
        table.clear()
    table[keys[-1]] = value


def delete(document: dict[str, Any], dotted: str) -> bool:
    """Remove one dotted key in place; return whether it was there."""
    *tables, key = dotted.split(".")
    table: Any = document
    for name in tables:
        table = table.get(name) if isinstance(table, dict) else None
    return isinstance(table, dict) and table.pop(key, ABSENT) is not ABSENT


def _value(text: str) -> Any:
    """A value as TOML has it; a bare word is a string, for a shell eats the quotes."""
    try:
        parsed = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if len(parsed) == 1 else text.strip()


def _is_unicode(text: str) -> bool:
    """Whether this is text; the bytes of an argument that are none arrive as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _item(items: list[Any], key: str, named: str) -> Any:
    if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(items):
        raise RecipeError(f"{named}: {quoted(key)} is not one of the {len(items)} entries", f"number them from 0 to {len(items) - 1}")
    return items[int(key)]


def differences(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, of each document, the dotted keys that have another value in another of them; keys that others lack are left out."""
    flat = [flatten(document) for document in documents]
    values: dict[str, list[Any]] = {}
    for one in flat:
        for key, value in one.items():
            if value not in (known := values.setdefault(key, [])):
                known.append(value)
    return [{key: value for key, value in one.items() if len(values[key]) > 1} for one in flat]
