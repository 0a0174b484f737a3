"""Dotted keys of a recipe's document: ``--set optim.learning_rate=3e-4``."""

from typing import Any

import tomli

from gmmcli.errors import RecipeError


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
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {override!r} is not of the form key=value", "say, --set optim.learning_rate=3e-4")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text.strip()  # a bare word is a string: a shell eats the quotes
    table: Any = document
    for key in keys[:-1]:
        table = _item(table, key, dotted) if isinstance(table, list) else table.setdefault(key, {})
        if not isinstance(table, (dict, list)):
            raise RecipeError(f"--set {dotted}: {key} is a value, not a table")
    if isinstance(table, list):
        _item(table, keys[-1], dotted)
        table[int(keys[-1])] = value
        return
    if keys[-1] == "kind" and table.get("kind", value) != value:
        table.clear()
    table[keys[-1]] = value


def delete(document: dict[str, Any], dotted: str) -> None:
    """Remove one dotted key in place."""
    *tables, key = dotted.split(".")
    for table in tables:
        document = document[table]
    del document[key]


def _item(items: list[Any], key: str, dotted: str) -> Any:
    if not key.isdigit() or int(key) >= len(items):
        raise RecipeError(f"--set {dotted}: {key!r} is not one of the {len(items)} entries", f"number them from 0 to {len(items) - 1}")
    return items[int(key)]
