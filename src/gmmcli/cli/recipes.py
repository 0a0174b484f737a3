"""``gmmc recipes``."""

from pathlib import Path
from typing import Annotated

import typer

from gmmcli import layout
from gmmcli.cli import completion, recipes_new
from gmmcli.cli.options import Json, answer
from gmmcli.cli.verbs import Verbs
from gmmcli.errors import RecipeError
from gmmcli.layout import Table

app = Verbs(help="Write, list, show, check and compare recipes.")
app.command("new", epilog=recipes_new.EPILOG)(recipes_new.new_command)
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key. Repeatable.")]
Name = Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped recipe.", autocompletion=completion.recipes)]


@app.command("ls", epilog="Example:\n\ngmmc recipes ls")
def ls(json: Json = False) -> None:
    """List the shipped recipes, each with its first line."""
    from gmmcli.shelf import shipped

    about = {name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for name, path in shipped().items()}
    if json:
        answer({"schema": 1, "command": "recipes ls", "values": about})
        return
    layout.show(Table(rows=[*about.items()], sentences=True))


@app.command("show", epilog="Examples:\n\ngmmc recipes show digits_gen\n\ngmmc recipes show digits_gen --file > mine.toml")
def show(
    recipe: Name,
    overrides: Overrides = None,
    file: Annotated[bool, typer.Option("--file", help="Print the file unchanged, with its comments, instead of every key.")] = False,
    json: Json = False,
) -> None:
    """Show a recipe with every key, or its file."""
    if file and (overrides or json):
        raise RecipeError("--file prints the file unchanged", "leave out --set and --json")
    from gmmcli.recipe import Recipe, find

    resolved = Recipe.load(recipe, overrides or ())
    if json:
        answer({"schema": 1, "command": "recipes show", "recipe": resolved.document()})
    else:
        print(find(recipe).read_text(encoding="utf-8") if file else resolved.dumps(), end="")


@app.command("check", epilog="Example:\n\ngmmc recipes check recipes/*.toml")
def check(
    recipes: Annotated[list[Path], typer.Argument(help="TOML files, or names of shipped recipes.", autocompletion=completion.recipes)],
    json: Json = False,
) -> None:
    """Check that recipes are valid; stop at the first that is not (exit 2)."""
    from gmmcli.recipe import Recipe

    names = [Recipe.load(recipe).name for recipe in recipes]
    if json:
        answer({"schema": 1, "command": "recipes check", "values": {"valid": names}})
    else:
        print("\n".join(f"{path}: valid" for path in recipes))


@app.command("diff", epilog="Example:\n\ngmmc recipes diff cifar10_gen svhn_gen")
def diff(left: Name, right: Name, json: Json = False) -> None:
    """Show the keys that differ between two recipes, with both values."""
    from gmmcli.overrides import flatten
    from gmmcli.recipe import Recipe

    first, second = (flatten(Recipe.load(name).document()) for name in (left, right))
    keys = [key for key in first | second if first.get(key) != second.get(key)]
    if json:
        answer({"schema": 1, "command": "recipes diff", "values": {key: [first.get(key), second.get(key)] for key in keys}})
        return
    layout.show(*(f"{key}: {first.get(key, '-')} -> {second.get(key, '-')}" for key in keys))
