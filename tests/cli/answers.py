"""Answers of --json and saved results, held to the schemas of docs/schema/."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parents[2] / "docs" / "schema"


@cache
def schemas() -> dict[str, Any]:
    """Every schema by the name of its file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def schema_name(command: str) -> str:
    """The file of a command's schema; that of attacks within a ball for one that an installed package adds."""
    name = f"{command.replace(' --', ' ').replace(' ', '-')}.json"
    return "attack.json" if name.startswith("attack-") and name not in schemas() else name


@cache
def validator(name: str) -> "Draft202012Validator":
    """What checks documents against a schema; references between schemas are looked up in the folder."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    registry = Registry().with_contents(schemas().items())
    return Draft202012Validator(schemas()[name], registry=registry)


def check(document: dict[str, Any]) -> None:
    """AssertionError where an answer or a result is not as the schema of its command says."""
    from jsonschema.exceptions import best_match

    error = best_match(validator(schema_name(document["command"])).iter_errors(document))
    assert error is None, f"{document['command']}: {error.json_path}: {error.message}"
