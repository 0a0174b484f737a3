"""A user's own images: a tree with one folder a class, or a .zip of one."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import numpy as np
import torch

from gmmcli.data.cache import cached
from gmmcli.data.dataset import Dataset, HeldOut, Split, concatenate, hold_out
from gmmcli.data.decoding import Decoder
from gmmcli.data.mapped import Mapped, in_memory
from gmmcli.data.reading import CLASSES, NAME, check_memory, reading
from gmmcli.data.tree import SUFFIXES, Index, Tree, Zipped, images_below, listed, stamp
from gmmcli.errors import DataError
from gmmcli.progress import image_progress
from gmmcli.types import Natural, RawImages

TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
PUT_SOME = f"put some there ({', '.join(sorted(SUFFIXES))})"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Source table: ``path/train/<class>/*.png`` with ``test/`` and ``val/`` beside it, or just ``path/<class>/*.png``.

    What is not there is held out of train: a share of ``validation`` each. Classes are numbered in alphabetical order.
    """

    n_classes: ClassVar[int | None] = None
    kind: Literal["folder"] = "folder"
    path: str = "data/images"
    """The folder or .zip file; a relative path starts in the directory that training was started from. Splits of more than 1 GiB are
    decoded once, into ``$XDG_CACHE_HOME/gmmc`` or ``~/.cache/gmmc``, and read from there."""
    size: Natural = 32
    """Every image is resized (shorter side, then centre crop) to size x size; 0 keeps them as they are, all alike."""
    channels: Literal[1, 3] = 3
    """1: grey, 3: colour; images are converted."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation where there is no val/, and for testing where there is
    no test/."""

    def load(self) -> Dataset:
        """Read the tree; DataError names the first file or folder that will not do."""
        decoder = Decoder(self.size, self.channels)
        with self.tree() as root:
            names = self.names(self.parts(root)[0])
            return self.dealt(root, names, lambda part: self._read(part, names, decoder))

    def pictures(self, last: int = 0) -> RawImages:
        """Read images without their classes: all below ``test/`` where there is one, else all there are; the ``last`` so many of them."""
        with self.tree() as root:
            tests = [d for d in listed(root).folders if d.name.lower() in TEST]
            files = images_below(tests[0] if tests else root)[-last:]
            if not files:
                raise DataError(f"{self.path} holds no images", PUT_SOME)
            decoder = Decoder(self.size, self.channels)
            return self._stacked(files, decoder.shape(files), decoder)

    def everything(self) -> tuple[Split, tuple[str, ...]]:
        """Read the images to test on: of ``test/`` where there is one, else of all class folders; and the names of the classes."""
        with self.tree() as root:
            decoder = Decoder(self.size, self.channels)
            tests = [d for d in listed(root).folders if d.name.lower() in TEST and listed(d).folders]
            train, validation, _ = self.parts(root)
            parts = tests[:1] or [train, *([validation] if validation else [])]
            names = self.names(parts[0])
            return concatenate(*(self._read(part, names, decoder) for part in parts)), names

    @contextmanager
    def files(self) -> Iterator[tuple[dict[str, list[Tree]], int]]:
        """Yield the files to train on by class, none of them read, and how many splits are held out of them."""
        with self.tree() as root:
            train, *apart = self.parts(root)
            names = self.names(train)
            folders = {d.name: d for d in listed(train).folders}
            yield {name: listed(folders[name]).images for name in names}, apart.count(None)

    @contextmanager
    def tree(self) -> Iterator[Tree]:
        """Open the folder, or the .zip: where the images are."""
        top = self._top(Path(self.path))
        if isinstance(top, Path):
            yield top
            return
        with top as index:
            root = Zipped(index, index.root)
            inside = listed(root).folders
            yield inside[0] if len(inside) == 1 else root  # a zip of the folder rather than of its content

    def _top(self, path: Path) -> Path | Index:
        with reading(f"{self.path} cannot be read", "check the path and its permissions"):
            if not path.exists():
                raise DataError(f"no folder or .zip at {self.path}", "put your images there, or set data.source.path to where they are")
            try:
                return path if path.is_dir() else Index(path)
            except zipfile.BadZipFile as error:
                raise DataError(f"{self.path} is not a .zip file", "give a folder, or a .zip of one") from error

    def parts(self, root: Tree) -> tuple[Tree, Tree | None, Tree | None]:
        """Where the images of train, validation and test are; DataError where two folders would do."""
        folders = listed(root).folders

        def find(names: tuple[str, ...]) -> Tree | None:  # a folder of images is a class, whatever its name
            found = [d for d in folders if d.name.lower() in names and listed(d).folders]
            if len(found) > 1:
                raise DataError(f"{self.path} has both {found[0].name!r} and {found[1].name!r}", "keep one of them")
            return found[0] if found else None

        train = find(TRAIN)
        return (train, find(VALIDATION), find(TEST)) if train else (root, None, None)

    def dealt(self, root: Tree, names: tuple[str, ...], read: Callable[[Tree], Split]) -> Dataset:
        """Deal images into the three splits, always the same way; ``read`` gives all of a part of the tree."""
        train_root, validation_root, test_root = self.parts(root)
        train = read(train_root)
        if test_root is None:
            train, test = hold_out(train, self.validation, self.path)
        else:
            test = read(test_root)
        if validation_root is None:
            train, validation = hold_out(train, self.validation, self.path)
        else:
            validation = read(validation_root)
        return Dataset(self.path, names, train, validation, test)

    def names(self, root: Tree) -> tuple[str, ...]:
        """The classes: the folders in the part to train on, in alphabetical order; DataError where there are none, or too many."""
        names = tuple(d.name for d in listed(root).folders)
        if not names:
            raise DataError(f"{self.path} has no class folders", "lay it out as <class>/<image>.png, or train/<class>/<image>.png")
        if len(names) > CLASSES or max(map(len, names)) > NAME:
            raise DataError(
                f"{self.path} has {len(names):,} class folders, their names have up to {max(map(len, names)):,} characters",
                f"there may be {CLASSES:,} of {NAME:,}",
            )
        return names

    def _read(self, root: Tree, names: tuple[str, ...], decoder: Decoder) -> Split:
        folders = {d.name: d for d in listed(root).folders}
        if strangers := folders.keys() - names:
            raise DataError(f"{root}: class {min(strangers)!r} is not among the training classes", "name the folders alike in every split")
        files: list[Tree] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            found = listed(folders[name]).images if name in folders else []
            if not found:
                raise DataError(f"{root}/{name} holds no images", f"{PUT_SOME}, or remove the class")
            files += found
            labels += [label] * len(found)
        shape = decoder.shape(files)
        small = len(files) <= in_memory(prod(shape[1:]))
        images = self._stacked(files, shape, decoder) if small else self._cached(root, files, shape, decoder)
        return Split(images, torch.tensor(labels))

    def _stacked(self, files: list[Tree], shape: tuple[int, ...], decoder: Decoder) -> RawImages:
        check_memory(self.path, prod(shape))
        images = np.empty(shape, np.uint8)
        for place, image in zip(images, decoder.all(files, shape), strict=True):
            place[:] = image
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def _cached(self, root: Tree, files: list[Tree], shape: tuple[int, ...], decoder: Decoder) -> Mapped:
        def write(npy: BinaryIO) -> None:
            np.lib.format.write_array_header_1_0(npy, {"descr": "|u1", "fortran_order": False, "shape": shape})
            with image_progress(f"decoding {root}", len(files), quiet=False) as progress:
                for done, image in enumerate(decoder.all(files, shape), 1):
                    npy.write(image.tobytes())
                    progress(done)

        state = "\n".join(f"{str(file).removeprefix(str(root))} {stamp(file)}" for file in files)
        return Mapped.whole(cached(f"{Path(str(root)).resolve()} {self.size} {self.channels}", state, shape, write))
