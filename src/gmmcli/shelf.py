"""The recipes and studies that come with gmmc."""

from pathlib import Path
from typing import Literal

from gmmcli.errors import LONGEST_QUOTED, RecipeError, shortened
from gmmcli.hints import listed, nearest
from gmmcli.storage import is_file

Shelf = Literal["recipes", "studies"]


def shipped(shelf: Shelf = "recipes") -> dict[str, Path]:
    """The recipes, or studies, that come with gmmc, by name: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / shelf
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / shelf
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str, shelf: Shelf = "recipes") -> Path:
    """Resolve a path or a shipped file's name; ``recipes/NAME.toml`` works without a checkout too."""
    path, known = Path(name), shipped(shelf)
    if is_file(path):
        return path
    if path.stem in known and path in (Path(path.stem), Path(shelf) / f"{path.stem}.toml"):
        return known[path.stem]
    one = {"recipes": "recipe", "studies": "study"}[shelf]
    near = nearest(path.stem, known)
    hint = (
        f"did you mean {near}?"
        if near
        else f"those that come with gmmc: {listed(known) if shelf == 'studies' else '`gmmc recipes ls`, digits_gen among them'}"
    )
    raise RecipeError(f"no {one} {shortened(name, LONGEST_QUOTED)}: neither a file nor the name of a shipped {one}", hint)
