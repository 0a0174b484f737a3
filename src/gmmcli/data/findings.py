"""What is odd about images that can be read: duplicates, sizes, grey among colour, classes with few images."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gmmcli.data.dataset import Dataset
from gmmcli.data.similar import MOST, alike

SMALL = 2
"""Images that are enlarged by more than this are told."""
ELONGATED = 2
"""Images with a ratio of their sides beyond this are told: the crop leaves less than half of them."""
IMBALANCED = 3
"""It is told where the largest class has more than this many times the images of the smallest."""
FEW = 20
"""It is told where there are fewer validation images: ``gmmc classify`` then cannot tell known images from unknown."""


class Image(NamedTuple):
    """An image that can be read."""

    name: str
    """Its path below the folder."""
    label: int
    split: str
    width: int
    height: int
    grey: bool
    """Whether training sees no colour in it."""
    pixels: bytes
    """A hash of what training sees of it."""
    sketch: np.ndarray
    """See ``similar``."""


class Named(NamedTuple):
    """A file that a finding is about."""

    file: str
    about: str = ""
    """What is said of it."""


@dataclass(frozen=True)
class Finding:
    """One thing that is odd."""

    kind: str
    """A word for programs."""
    text: str
    groups: Sequence[Sequence[Named]] = ()
    """All files of which it is true; those that belong together are in one group."""
    problem: bool = False
    """Whether training refuses it; otherwise it is a remark."""

    def document(self) -> dict[str, Any]:
        """The finding as plain data, the files one by one, with the number of their group."""
        files = [{**named._asdict(), "group": at} for at, group in enumerate(self.groups) for named in group]
        return {"kind": self.kind, "problem": self.problem, "n": len(self.groups), "text": self.text, "files": files}


def plural(n: int, one: str, many: str) -> str:
    """``1 image is``, ``1,200 images are``."""
    return f"{n:,} {one if n == 1 else many}"


def duplicates(images: Sequence[Image]) -> Iterator[Finding]:
    """Images that are the same to training, then those that look alike; the worst first: with different labels, in several splits."""
    same = defaultdict[bytes, list[int]](list)
    for at, image in enumerate(images):
        same[image.pixels].append(at)
    yield from _repeated("identical", "identical images", images, [group for group in same.values() if len(group) > 1])
    different = [group[0] for group in same.values()]
    if len(different) > MOST:
        yield Finding("not-compared", f"more than {MOST:,} images: only identical ones were looked for, not those that look alike")
    elif different:
        pairs = alike(np.stack([images[at].sketch for at in different]))
        _, component = connected_components(coo_array((np.ones(len(pairs)), pairs.T), shape=(len(different),) * 2), directed=False)
        together = defaultdict[int, list[int]](list)
        for number in np.unique(pairs):
            together[component[number]].append(different[number])
        yield from _repeated("similar", "images that look alike", images, list(together.values()))


def _repeated(kind: str, what: str, images: Sequence[Image], groups: list[list[int]]) -> Iterator[Finding]:
    sorted_out = defaultdict[str, list[list[Named]]](list)
    for group in groups:
        labels, splits = ({getattr(images[at], key) for at in group} for key in ("label", "split"))
        where = "labels" if len(labels) > 1 else "splits" if len(splits) > 1 else "split"
        sorted_out[where].append([Named(images[at].name, images[at].split) for at in group])
    for where, consequence in (
        ("labels", "with different labels: look which is right"),
        ("splits", "in different splits, which are then not independent"),
        ("split", "within a split and a class"),
    ):
        if found := sorted_out[where]:
            n = plural(len(found), "group", "groups")
            yield Finding(f"{kind}-{where}", f"{n} of {what} {consequence}", found)


def shapes(images: Sequence[Image], size: int) -> Iterator[Finding]:
    """Images that lose or gain much as they are brought to ``size``; where that is 0, images of another size than the first."""

    def of(found: list[Image]) -> list[list[Named]]:
        return [[Named(image.name, f"{image.width} x {image.height}")] for image in found]

    if not size:
        first = images[0]
        if found := [image for image in images if (image.width, image.height) != (first.width, first.height)]:
            n = plural(len(found), "image is", "images are")
            said = f"{n} of another size than {first.name}, {first.width} x {first.height}: set data.source.size to bring all to one size"
            yield Finding("other-size", said, of(found), problem=True)
        return
    if found := [image for image in images if min(image.width, image.height) * SMALL < size]:
        n = plural(len(found), "image is", "images are")
        yield Finding("small", f"{n} smaller than half of the {size} x {size} pixels that are used, and will be enlarged", of(found))
    if found := [image for image in images if max(image.width, image.height) > ELONGATED * min(image.width, image.height)]:
        n = plural(len(found), "image has", "images have")
        said = f"{n} one side over {ELONGATED} times the other: the shorter is resized to {size}, the centre cropped, the rest is lost"
        yield Finding("elongated", said, of(found))


def greys(images: Sequence[Image]) -> Iterator[Finding]:
    """Grey images where colour is read."""
    found = [image for image in images if image.grey]
    if len(found) == len(images):
        yield Finding("grey", "all images are grey: data.source.channels = 1 is enough, and faster")
    elif found:
        n = plural(len(found), "image is", "images are")
        yield Finding("grey", f"{n} grey among {len(images) - len(found):,} in colour", [[Named(image.name)] for image in found])


def classes(dataset: Dataset) -> Iterator[Finding]:
    """Classes of unlike sizes, and too few images to validate or test with."""
    names = dataset.class_names
    counts = dataset.train.labels.bincount(minlength=len(names)).tolist()
    least, most = min(counts), max(counts)
    if most > IMBALANCED * least:
        small, large = names[counts.index(least)], names[counts.index(most)]
        yield Finding(
            "imbalance", f"classes differ in size: {large} has {most:,} training images, {small} {least:,}; models favour large classes"
        )
    for split in (dataset.validation, dataset.test):
        where = "validation" if split is dataset.validation else "test"
        counts = split.labels.bincount(minlength=len(names)).tolist()
        if missing := [name for name, n in zip(names, counts, strict=True) if not n]:
            n = plural(len(missing), "class has", "classes have")
            yield Finding(
                f"no-{where}",
                f"{n} no {where} image: add images, or set data.source.validation larger",
                [[Named(name)] for name in missing],
            )
    if (n_validation := len(dataset.validation)) < FEW:
        said = f"{plural(n_validation, 'validation image', 'validation images')}: gmmc classify needs {FEW} to tell known from unknown"
        yield Finding("few-validation", f"{said}; add images, or set data.source.validation larger")
