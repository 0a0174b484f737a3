"""``gmmc data``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gmmcli.cli import completion
from gmmcli.cli.options import Json, Quiet, answer, note
from gmmcli.cli.verbs import Verbs
from gmmcli.errors import DataError, RecipeError, quoted
from gmmcli.hints import nearest
from gmmcli.layout import Table, show

if TYPE_CHECKING:
    from gmmcli.data.dataset import Dataset
    from gmmcli.data.findings import Finding
    from gmmcli.data.folder import Folder
    from gmmcli.data.sources import Source

SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
LISTED = 10  # groups of a finding, and files of a group, that are printed

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
    show(Table(rows=[*about.items()], sentences=True))


@app.command("download", epilog="Example:\n\ngmmc data download svhn")
def download(
    name: Annotated[str, typer.Argument(help="mnist, svhn, cifar10 or cifar100.")],
    root: Annotated[Path, typer.Option("--root", help="The folder for the files: data.source.root of a recipe.")] = Path("data"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, sizes, URLs and what is there, without the network.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download a dataset's files and check their sha256; those that are there and sound stay."""
    from gmmcli.data.remote import published
    from gmmcli.data.sources import SOURCES

    known = {kind: found for kind, source in SOURCES.items() if (found := published(source))}
    if name not in known:
        raise RecipeError(f"{quoted(name)} is not a dataset that can be downloaded", f"give one of {', '.join(known)}")
    fetched = known[name].wanted(root) if dry_run else known[name].download(root, quiet)
    if json:
        files = [{**file._asdict(), "place": str(root / file.place), "downloaded": file in fetched} for file in known[name].files]
        answer({"schema": 1, "command": "data download", "dataset": name, "dry_run": dry_run, "values": {"files": files}})
        return
    for file in known[name].files:
        line = f"{root / file.place}  {file.size:,} bytes, "
        if dry_run:
            show(f"{line}{'would be downloaded' if file in fetched else 'is there'}, {file.url}")
        else:
            show(f"{line}{'downloaded' if file in fetched else 'was there'}, sha256 as published")


CHECK = (
    "Examples:\n\ngmmc data check digits\n\ngmmc data check 'my photos' --fix --dry-run\n\n"
    "gmmc data check folder:photos.zip --json\n\ngmmc data check recipes/folder_gen.toml"
)


@app.command("check", epilog=CHECK)
def check(
    what: Annotated[
        str,
        typer.Argument(
            help="NAME, folder:PATH, npz:PATH, a recipe, or the path of a folder, a .zip or an .npz.",
            autocompletion=completion.sources,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With a recipe: override a key. Repeatable.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Move files that hold no readable image to FOLDER.set-aside, beside the folder; delete nothing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: show what it would move.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Load a dataset as training would and show its contents; exit 3 if it is missing or broken.

    Of a folder or .zip of images it tells everything odd: unreadable and ignored files, duplicates, sizes, grey images, small classes.

    What training refuses is a problem and exits 3; remarks alone exit 0.

    A dataset that gmmc data download knows is downloaded where it is not on disk, unless --offline forbids it.
    """
    from gmmcli.data.folder import Folder

    if dry_run and not fix:
        raise RecipeError("--dry-run needs --fix", "a check without --fix changes nothing")
    source = _source(what, overrides or [])
    if isinstance(source, Folder):
        _check_folder(source, fix, dry_run, json, quiet)
        return
    if fix:
        raise RecipeError(f"--fix moves files of a folder of images, and {what} is none", "leave out --fix")
    dataset = source.load()
    dataset.check_trainable()
    if json:
        answer({"schema": 1, "command": "data check", "dataset": dataset.name, "values": _contents(dataset)})
    else:
        _print_contents(dataset)


def _source(what: str, overrides: list[str]) -> "Source":
    """The dataset that is meant: by its name or KIND:PATH, by a path, or by a recipe."""
    from gmmcli.data.sources import SOURCES, parse_source, source_at
    from gmmcli.recipe import Recipe
    from gmmcli.shelf import shipped
    from gmmcli.storage import is_file

    recipes = shipped()
    named = what.partition(":")[0] in SOURCES
    source = None if named or what in recipes else source_at(what)
    if source is None and (named or ":" in what):
        source = parse_source(what)
    if source is not None:
        if overrides:
            raise RecipeError("--set needs a recipe", "give a recipe, or leave out --set")
        return source
    if what in recipes or what.endswith(".toml") or is_file(Path(what)):
        return Recipe.load(what, overrides).data.source
    near = nearest(what, [*SOURCES, *recipes])
    hint = (
        f"did you mean {near}?" if near else "give the path of a folder, .zip, .npz or recipe, or a name: `gmmc data ls`, `gmmc recipes ls`"
    )
    raise RecipeError(f"there is no dataset, folder or recipe {quoted(what)}", hint)


def _check_folder(source: "Folder", fix: bool, dry_run: bool, json: bool, quiet: bool) -> None:
    """Report what is odd about a folder of images, and set broken files aside; DataError where training refuses what is left."""
    from gmmcli.data.inspection import inspect
    from gmmcli.data.set_aside import move, moves

    folder = Path(source.path)
    if fix and not folder.is_dir():
        raise RecipeError(f"--fix moves files of a folder, and {folder} is none", "unpack it, or leave out --fix")
    report = inspect(source, quiet)
    planned = moves(folder, report.broken) if fix else []
    if not json:
        for finding in report.findings:
            _print_finding(finding)
        if report.dataset:
            _print_contents(report.dataset)
        if report.ignored:
            show(f"ignored     {', '.join(f'{n:,} {why}' for why, n in report.ignored.items())}")
    for one in planned:
        if not dry_run:
            move(one)
        said = (
            f"{'would move' if dry_run else 'moved'} {one.file} to {one.to}" if one.to else f"left {one.file}: a link leads to its folder"
        )
        note(said) if json else show(said)
    if json:
        values = (_contents(report.dataset) if report.dataset else {"shape": None, "classes": report.class_names, "splits": {}}) | {
            "n": report.n,
            "findings": [finding.document() for finding in report.findings],
            "moved": [{"file": str(one.file), "to": str(one.to)} for one in planned if one.to],
        }
        values |= {"ignored": report.ignored} if report.ignored else {}
        answer({"schema": 1, "command": "data check", "dataset": source.path, "dry_run": dry_run, "values": values})
    moved = 0 if dry_run else sum(one.to is not None for one in planned)
    problems = [found for found in report.findings if found.problem and not (found.kind == "unreadable" and moved == len(found.groups))]
    if problems:
        fixable = f"; `gmmc data check {shlex.quote(source.path)} --fix` moves broken files aside" if folder.is_dir() and not fix else ""
        hint = f"repair or remove the files listed{fixable if report.broken else ''}"
        raise DataError(f"{source.path}: {'; '.join(found.text for found in problems)}", hint)


def _print_finding(finding: "Finding") -> None:
    show(f"{'problem' if finding.problem else 'remark'}: {finding.text}")
    table = Table(sentences=True)
    for group in finding.groups[:LISTED]:
        names = [f"{named.file} ({named.about})" if named.about else named.file for named in group[:LISTED]]
        table.add("", f"{', '.join(names)}{f' and {len(group) - LISTED:,} more' if len(group) > LISTED else ''}")
    if len(finding.groups) > LISTED:
        table.add("", f"and {len(finding.groups) - LISTED:,} more, which --json names")
    show(table)


def _contents(dataset: "Dataset") -> dict[str, Any]:
    """Shape, classes and splits, as data."""
    splits: dict[str, Any] = {}
    for name in SPLITS:
        split = dataset.split(name)
        counts = split.labels.bincount(minlength=dataset.n_classes).tolist()
        splits[name] = {"n": len(split), "per_class": dict(zip(dataset.class_names, counts, strict=True))}
    return {"shape": list(dataset.shape), "classes": dataset.class_names, "splits": splits}


def _print_contents(dataset: "Dataset") -> None:
    channels, height, width = dataset.shape
    show(f"{dataset.name}: {dataset.n_classes} classes, {height} x {width} x {channels}")
    table = Table(sentences=True)
    for name, about in _contents(dataset)["splits"].items():
        counts = about["per_class"].values()
        table.add(name, f"{about['n']:>7,} images, {min(counts):,} to {max(counts):,} per class")
    show(table)
