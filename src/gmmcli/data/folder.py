"""A user's own images: a tree with one folder a class, or a .zip of one."""

import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from gmmcli.data.dataset import Dataset, HeldOut, Split, hold_out
from gmmcli.errors import DataError
from gmmcli.types import Natural, RawImages

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
Tree = Path | zipfile.Path
TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Source table: ``path/train/<class>/*.png`` with ``test/`` and ``val/`` beside it, or just ``path/<class>/*.png``.

    What is not there is held out of train: a share of ``validation`` each. Classes are numbered in alphabetical order.
    """

    n_classes: ClassVar[int | None] = None
    kind: Literal["folder"] = "folder"
    path: str = "data/images"
    """The folder or .zip file; a relative path starts in the directory that training was started from."""
    size: Natural = 32
    """Every image is resized (shorter side, then centre crop) to size x size; 0 keeps them as they are, all alike."""
    channels: Literal[1, 3] = 3
    """1: grey, 3: colour; images are converted."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation where there is no val/, and for testing where there is
    no test/."""

    def load(self) -> Dataset:
        """Read the tree; DataError names the first file or folder that will not do."""
        root = self._root()
        parts = {d.name.lower(): d for d in _folders(root) if _folders(d)}  # a folder of images is a class, whatever its name

        def find(names: tuple[str, ...]) -> Tree | None:
            return next((parts[name] for name in names if name in parts), None)

        train_root = find(TRAIN)
        test_root, validation_root = (find(TEST), find(VALIDATION)) if train_root else (None, None)
        train_root = train_root or root
        names = tuple(d.name for d in _folders(train_root))
        if not names:
            raise DataError(f"{self.path} has no class folders", "lay it out as <class>/<image>.png, or train/<class>/<image>.png")
        train = self._read(train_root, names)
        if test_root is None:
            train, test = hold_out(train, self.validation, self.path)
        else:
            test = self._read(test_root, names)
        if validation_root is None:
            train, validation = hold_out(train, self.validation, self.path)
        else:
            validation = self._read(validation_root, names)
        return Dataset(self.path, names, train, validation, test)

    def pictures(self, last: int = 0) -> RawImages:
        """Read images without their classes: all below ``test/`` where there is one, else all there are; the ``last`` so many of them."""
        root = self._root()
        tests = [d for d in _folders(root) if d.name.lower() in TEST]
        files = _below(tests[0] if tests else root)[-last:]
        if not files:
            raise DataError(f"{self.path} holds no images", f"put some there ({', '.join(sorted(SUFFIXES))})")
        return self._stacked(root, files)

    def _root(self) -> Tree:
        path = Path(self.path)
        if not path.exists():
            raise DataError(f"no folder or .zip at {self.path}", "put your images there, or set data.source.path to where they are")
        if path.is_dir():
            return path
        try:
            root: Tree = zipfile.Path(zipfile.ZipFile(path))
        except zipfile.BadZipFile as error:
            raise DataError(f"{self.path} is not a .zip file", "give a folder, or a .zip of one") from error
        inside = _folders(root)
        return inside[0] if len(inside) == 1 else root  # a zip of the folder rather than of its content

    def _read(self, root: Tree, names: tuple[str, ...]) -> Split:
        if strangers := [d.name for d in _folders(root) if d.name not in names]:
            raise DataError(f"{root}: class {strangers[0]!r} is not among the training classes", "name the folders alike in every split")
        files: list[tuple[Tree, int]] = []
        for label, name in enumerate(names):
            found = _images(root / name) if (root / name).is_dir() else []
            if not found:
                raise DataError(f"{root / name} holds no images", f"put some there ({', '.join(sorted(SUFFIXES))}), or remove the class")
            files += [(file, label) for file in found]
        return Split(self._stacked(root, [file for file, _ in files]), torch.tensor([label for _, label in files]))

    def _stacked(self, root: Tree, files: list[Tree]) -> RawImages:
        if isinstance(root, zipfile.Path):  # an open zip is one file handle: not for several threads
            pixels = [self._decode(file) for file in files]
        else:
            with ThreadPoolExecutor() as pool:
                pixels = list(pool.map(self._decode, files))
        for file, image in zip(files, pixels, strict=True):
            if image.shape != pixels[0].shape:
                raise DataError(
                    f"{file} is {image.shape[1]} x {image.shape[0]}, {files[0]} is {pixels[0].shape[1]} x {pixels[0].shape[0]}",
                    "set data.source.size to bring all to one size",
                )
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def _decode(self, file: Tree) -> np.ndarray:
        try:
            with file.open("rb") as stream, Image.open(stream) as opened:
                image = ImageOps.exif_transpose(opened).convert("L" if self.channels == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:  # what Pillow raises on broken files
            raise DataError(f"{file} is not a readable image ({error})", "repair or remove it") from error
        if self.size and image.size != (self.size, self.size):
            image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(image.height, image.width, self.channels)


def _folders(root: Tree) -> list[Tree]:
    found: list[Tree] = [d for d in root.iterdir() if d.is_dir() and not d.name.startswith((".", "__"))]
    return sorted(found, key=lambda d: d.name)


def _images(folder: Tree) -> list[Tree]:
    found: list[Tree] = [f for f in folder.iterdir() if Path(f.name).suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    return sorted(found, key=lambda f: f.name)


def _below(folder: Tree) -> list[Tree]:
    return [*_images(folder), *(image for inner in _folders(folder) for image in _below(inner))]
