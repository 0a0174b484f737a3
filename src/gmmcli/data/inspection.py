"""Everything that is odd about a folder of images, in one go: every image is read once, and none is kept."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch

from gmmcli.data.dataset import Dataset, Split, SplitName
from gmmcli.data.decoding import each, fitted, whole
from gmmcli.data.findings import Finding, Image, Named, classes, duplicates, greys, plural, shapes
from gmmcli.data.fingerprint import SPLITS
from gmmcli.data.folder import Folder
from gmmcli.data.mapped import Mapped
from gmmcli.data.reading import reason
from gmmcli.data.similar import sketch
from gmmcli.data.tree import Tree, Zipped, listed
from gmmcli.errors import DataError
from gmmcli.progress import image_progress


@dataclass
class Report:
    """What is in a folder of images, and what is odd about it."""

    class_names: tuple[str, ...]
    n: int = 0
    """Images, with those that cannot be read."""
    dataset: Dataset | None = None
    """The images that can be read, as they are dealt into splits; their pixels are not there. None where training refuses them."""
    findings: list[Finding] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """How many entries are not read, by why."""
    broken: list[Path] = field(default_factory=list)
    """Files on disk whose content is no image that can be read. What the system refuses to open is not among them: it may be sound."""


@dataclass(frozen=True)
class _Fault:
    reason: str
    of_system: bool


@dataclass(frozen=True)
class _Place:
    """A file, and where it belongs."""

    file: Tree
    part: SplitName
    label: int


Parts = dict[SplitName, Tree]


def inspect(source: Folder, quiet: bool = True) -> Report:
    """Read a folder or .zip of images, and tell everything that is odd.

    Raises:
        DataError: there are no class folders, or a folder cannot be listed.
    """
    with source.tree() as root:
        parts = {name: part for name, part in zip(SPLITS, source.parts(root), strict=True) if part}
        report = Report(source.names(parts["train"]))
        places = list(_places(parts, report.class_names))
        report.n = len(places)
        images: dict[int, Image] = {}
        faults: dict[int, _Fault] = {}
        with image_progress(f"checking {source.path}", len(places), quiet) as progress:
            progress(0)
            for at, look in enumerate(each(partial(_look, source), [place.file for place in places])):
                place = places[at]
                if isinstance(look, _Fault):
                    faults[at] = look
                else:
                    images[at] = look._replace(name=_below(root, place.file), label=place.label, split=place.part)
                progress(at + 1)
        report.broken = [file for at, fault in faults.items() if not fault.of_system and isinstance(file := places[at].file, Path)]
        if faults:
            unreadable = [[Named(_below(root, places[at].file), fault.reason)] for at, fault in faults.items()]
            said = f"{len(faults):,} of {plural(len(places), 'image', 'images')} cannot be read"
            report.findings.append(Finding("unreadable", said, unreadable, problem=True))
        misplaced = [*_misplaced(root, parts, report.class_names, {(places[at].part, places[at].label) for at in images})]
        report.findings += misplaced
        if not misplaced:
            _deal(source, root, report, places, images)
        seen = [images[at] for at in sorted(images)]
        report.findings += duplicates(seen)
        report.findings += classes(report.dataset) if report.dataset else ()
        if seen:
            report.findings += [*shapes(seen, source.size), *(greys(seen) if source.channels == 3 else ())]
        ignored = [*_ignored(root, parts)]
        report.ignored = Counter(why for why, _ in ignored)
        if ignored:
            said = f"{plural(len(ignored), 'file or folder is', 'files and folders are')} not read"
            report.findings.append(Finding("ignored", said, [[Named(_below(root, file), why)] for why, file in ignored]))
        report.findings.sort(key=lambda finding: not finding.problem)
        return report


def _places(parts: Parts, names: tuple[str, ...]) -> Iterator[_Place]:
    for part, root in parts.items():
        folders = {d.name: d for d in listed(root).folders}
        for label, name in enumerate(names):
            for file in listed(folders[name]).images if name in folders else []:
                yield _Place(file, part, label)


def _look(source: Folder, file: Tree) -> Image | _Fault:
    try:
        picture = whole(file, source.channels)
    except Exception as error:  # on a file from anyone, libraries raise anything
        return _Fault(reason(error), isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None))
    pixels = fitted(picture, source.size)
    grey = bool((pixels == pixels[..., :1]).all())
    return Image("", 0, "", *picture.size, grey, sha256(pixels.tobytes()).digest(), sketch(picture))


def _misplaced(root: Tree, parts: Parts, names: tuple[str, ...], filled: set[tuple[SplitName, int]]) -> Iterator[Finding]:
    """Classes without images, and folders of classes that training does not have."""
    empty = [f"{folder}/{name}" for part, folder in parts.items() for label, name in enumerate(names) if (part, label) not in filled]
    if empty:
        n = plural(len(empty), "class has", "classes have")
        said = f"{n} no image that can be read: put some there, or remove the class from every split"
        yield Finding("empty", said, [[Named(_below(root, folder))] for folder in empty], problem=True)
    if strange := [folder for part in parts.values() for folder in listed(part).folders if folder.name not in names]:
        n = plural(len(strange), "folder is", "folders are")
        said = f"{n} of a class that is not in the training images: name them alike in every split"
        yield Finding("stranger", said, [[Named(_below(root, folder))] for folder in strange], problem=True)


def _deal(source: Folder, root: Tree, report: Report, places: list[_Place], images: dict[int, Image]) -> None:
    """Deal the images into splits as training does, and note the split of each; or report why training would not."""
    first = images[min(images)]
    height, width = (source.size, source.size) if source.size else (first.height, first.width)
    nothing = torch.empty(1, height, width, source.channels, dtype=torch.uint8)  # the places of images are dealt, not their pixels
    part_of = {str(part): name for name, part in zip(SPLITS, source.parts(root), strict=True) if part}

    def read(part: Tree) -> Split:
        rows = [at for at in images if places[at].part == part_of[str(part)]]
        return Split(Mapped(nothing, torch.tensor(rows)), torch.tensor([images[at].label for at in rows]))

    try:
        dataset = source.dealt(root, report.class_names, read)
        dataset.check_trainable()
    except DataError as error:
        report.findings.append(Finding("refused", f"{error.message}: {error.hint}", problem=True))
        return
    report.dataset = dataset
    for name in SPLITS:
        dealt = dataset.split(name).images
        assert isinstance(dealt, Mapped)
        for at in dealt.rows.tolist():
            images[at] = images[at]._replace(split=name)


def _ignored(root: Tree, parts: Parts) -> Iterator[tuple[str, str]]:
    """The entries that no split is made of: why, and where they are."""
    yield from root.index.ignored if isinstance(root, Zipped) else ()
    in_use = {str(part) for part in parts.values()}
    for folder in {str(top): top for top in (root, *parts.values())}.values():
        listing = listed(folder)
        yield from listing.ignored
        yield from (("images outside of class folders", str(file)) for file in listing.images)
        for inner in listing.folders:
            if str(folder) in in_use:
                yield from listed(inner).ignored
                yield from (("folders within class folders", str(deeper)) for deeper in listed(inner).folders)
            elif str(inner) not in in_use:
                yield "folders beside train", str(inner)


def _below(root: Tree, file: Tree | str) -> str:
    """The path of a file as findings name it."""
    return str(file).removeprefix(str(root)).lstrip("/")
