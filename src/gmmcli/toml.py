"""TOML as plain tables, within limits: a stranger's file takes neither minutes nor the stack."""

from pathlib import Path
from typing import Any

import tomli

from gmmcli.errors import RecipeError

LONGEST = 2**18
"""Characters of a file; the largest that come with gmmc have five thousand."""
DEEPEST = 16
"""Tables and lists within each other; recipes have four."""
MOST_BITS = 1024
"""Of an integer. What is beyond int64 is told with its key, and what is far beyond cannot even be printed."""


def read(path: Path) -> str:
    """Read a file as UTF-8, or as much of it as shows that it is longer than ``parse`` takes; RecipeError where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read ({error})") from error


def parse(text: str, origin: str) -> dict[str, Any]:
    """Parse a text; RecipeError, which calls it ``origin``, where it is no TOML or beyond the limits."""
    if len(text) > LONGEST:
        raise RecipeError(f"{origin} is longer than {LONGEST:,} characters", "give a shorter file")
    try:
        document = tomli.loads(text)
    except (ValueError, RecursionError) as error:  # also of integers with thousands of digits, and of hundreds of brackets
        raise RecipeError(f"{origin} is not valid TOML: {error}") from error
    check(document, origin)
    return document


def check(document: dict[str, Any], origin: str) -> None:
    """Raise RecipeError for an integer beyond the limit, and for tables and lists too deep within each other for recursive functions."""
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        inside = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]
        if any(isinstance(item, int) and item.bit_length() > MOST_BITS for item in inside):
            raise RecipeError(f"{origin} has an integer of more than {MOST_BITS:,} bits", "integers of TOML have 64")
        level = [item for item in inside if isinstance(item, (dict, list))]
    if level:
        raise RecipeError(f"{origin} nests tables and lists more than {DEEPEST} deep", "a recipe needs four levels")
