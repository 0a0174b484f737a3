"""``gmmc data``."""

from typing import Annotated, Any

import typer

from gmmcli.cli.options import Json, answer
from gmmcli.errors import RecipeError

app = typer.Typer(no_args_is_help=True, help="List the kinds of dataset, and check one.")


@app.command("ls", epilog="Example:\n\ngmmc data ls")
def ls(json: Json = False) -> None:
    """List the kinds of dataset."""
    from gmmcli.data.sources import AT_PATH, NAMED

    kinds = {name: kind for name, kind in NAMED.items()} | {f"{name}:PATH": kind for name, kind in AT_PATH.items()}
    about = {name: (kind.__doc__ or "").partition("\n")[0].removeprefix("Source table: ") for name, kind in kinds.items()}
    if json:
        answer({"schema": 1, "command": "data ls", "values": about})
        return
    for name, line in about.items():
        print(f"{name:12}  {line}")


@app.command(
    "check", epilog="Examples:\n\ngmmc data check digits\n\ngmmc data check folder:my/images\n\ngmmc data check recipes/folder_gen.toml"
)
def check(
    what: Annotated[str, typer.Argument(help="NAME, folder:PATH, npz:PATH, or a recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With a recipe: override a key. Repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Load a dataset as training would and say what is in it; what is missing or broken is an error (exit 3)."""
    from gmmcli.data.sources import AT_PATH, NAMED, parse_source
    from gmmcli.recipe import Recipe

    is_source = what.partition(":")[0] in (NAMED | AT_PATH) or ":" in what
    if is_source and overrides:
        raise RecipeError("--set goes with a recipe", "give the recipe, or leave --set out")
    source = parse_source(what) if is_source else Recipe.load(what, overrides or ()).data.source
    dataset = source.load()
    dataset.check_trainable()
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        counts = split.labels.bincount(minlength=dataset.n_classes).tolist()
        splits[name] = {"n": len(split), "per_class": dict(zip(dataset.class_names, counts, strict=True))}
    channels, height, width = dataset.shape
    if json:
        values = {"shape": [channels, height, width], "classes": dataset.class_names, "splits": splits}
        answer({"schema": 1, "command": "data check", "dataset": dataset.name, "values": values})
        return
    print(f"{dataset.name}: {dataset.n_classes} classes, {height} x {width} x {channels}")
    for name, about in splits.items():
        counts = about["per_class"].values()
        print(f"{name:10}  {about['n']:>7,} images, {min(counts):,} to {max(counts):,} a class")
