"""``gmmc data``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Json, answer
from gmmcli.cli.verbs import Verbs
from gmmcli.errors import RecipeError, quoted, visible

app = Verbs(help="List the kinds of datasets, download one, or check one.")


@app.command("ls", epilog="Example:\n\ngmmc data ls")
def ls(json: Json = False) -> None:
    """List the kinds of datasets."""
    from gmmcli.data.sources import SOURCES, usage

    about = {
        usage(kind): (source.__doc__ or "").partition("\n")[0].removeprefix("Source table: ").replace("``", "")
        for kind, source in SOURCES.items()
    }
    if json:
        answer({"schema": 1, "command": "data ls", "values": about})
        return
    width = max(map(len, about))
    for name, line in about.items():
        print(f"{name:{width}}  {line}")


@app.command("download", epilog="Example:\n\ngmmc data download svhn")
def download(
    name: Annotated[str, typer.Argument(help="mnist, svhn, cifar10 or cifar100.")],
    root: Annotated[Path, typer.Option("--root", help="The folder for the files: data.source.root of a recipe.")] = Path("data"),
    json: Json = False,
) -> None:
    """Download a dataset's files and check their sha256; those that are there and sound stay."""
    from gmmcli.data.remote import published
    from gmmcli.data.sources import SOURCES

    known = {kind: found for kind, source in SOURCES.items() if (found := published(source))}
    if name not in known:
        raise RecipeError(f"{quoted(name)} is not a dataset that can be downloaded", f"give one of {', '.join(known)}")
    fetched = known[name].download(root)
    if json:
        files = [{**file._asdict(), "place": str(root / file.place), "downloaded": file in fetched} for file in known[name].files]
        answer({"schema": 1, "command": "data download", "dataset": name, "values": {"files": files}})
        return
    for file in known[name].files:
        print(f"{root / file.place}  {file.size:,} bytes, {'downloaded' if file in fetched else 'was there'}, sha256 as published")


@app.command(
    "check", epilog="Examples:\n\ngmmc data check digits\n\ngmmc data check folder:my/images\n\ngmmc data check recipes/folder_gen.toml"
)
def check(
    what: Annotated[
        str,
        typer.Argument(help="NAME, folder:PATH, npz:PATH, or a recipe.", autocompletion=completion.among("sources", *completion.SOURCES)),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With a recipe: override a key. Repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Load a dataset as training would and show its contents; exit 3 if it is missing or broken.

    One that gmmc data download knows is downloaded where it is not on disk, unless --offline forbids it.
    """
    from gmmcli.data.sources import SOURCES, parse_source
    from gmmcli.recipe import Recipe

    is_source = what.partition(":")[0] in SOURCES or ":" in what
    if is_source and overrides:
        raise RecipeError("--set needs a recipe", "give a recipe, or leave out --set")
    source = parse_source(what) if is_source else Recipe.load(what, overrides or ()).data.source
    dataset, ignored = source.check() if hasattr(source, "check") else (source.load(), {})
    dataset.check_trainable()
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        counts = split.labels.bincount(minlength=dataset.n_classes).tolist()
        splits[name] = {"n": len(split), "per_class": dict(zip(dataset.class_names, counts, strict=True))}
    channels, height, width = dataset.shape
    if json:
        values = {"shape": [channels, height, width], "classes": dataset.class_names, "splits": splits} | (
            {"ignored": ignored} if ignored else {}
        )
        answer({"schema": 1, "command": "data check", "dataset": dataset.name, "values": values})
        return
    print(f"{visible(dataset.name)}: {dataset.n_classes} classes, {height} x {width} x {channels}")
    for name, about in splits.items():
        counts = about["per_class"].values()
        print(f"{name:10}  {about['n']:>7,} images, {min(counts):,} to {max(counts):,} per class")
    if ignored:
        print(f"ignored     {', '.join(f'{n:,} {why}' for why, n in ignored.items())}")
