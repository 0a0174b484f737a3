"""What the tests of checking a folder share: a folder of pictures with which nothing is wrong, and its findings."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gmmcli.data.folder import Folder
from gmmcli.data.inspection import Report

RNG = np.random.default_rng(0)


def scene(size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A smooth picture in colour, another one at each call."""
    return Image.fromarray(RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def pets(root: Path, n: int = 12) -> Path:
    """Cats and dogs with which nothing is wrong."""
    for name in ("cat", "dog"):
        for i in range(n):
            saved(scene(), root / name / f"{i:02}.png")
    return root


def found(report: Report) -> dict[str, list[list[str]]]:
    """The files of each finding."""
    return {one.kind: [[named.file for named in group] for group in one.groups] for one in report.findings}


def about(report: Report, kind: str) -> dict[str, str]:
    (finding,) = [one for one in report.findings if one.kind == kind]
    return {named.file: named.about for group in finding.groups for named in group}


def source(path: Path, size: int = 32, channels: int = 3) -> Folder:
    return Folder(path=str(path), size=size, channels=channels, validation=0.25)  # type: ignore[arg-type]
