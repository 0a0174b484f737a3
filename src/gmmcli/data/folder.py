"""A user's own images: a tree with one folder a class, or a .zip of one."""

import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from threading import Lock
from typing import BinaryIO, ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from gmmcli.data.cache import cached
from gmmcli.data.dataset import Dataset, HeldOut, Split, hold_out
from gmmcli.data.mapped import Mapped, in_memory
from gmmcli.errors import DataError
from gmmcli.progress import image_progress
from gmmcli.types import Natural, RawImages

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
Tree = Path | zipfile.Path
AT_ONCE = 128  # images: of each its file and its pixels are in memory
ONE_AT_A_TIME = Lock()  # an open zip is one file handle
TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")


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
        with self._tree() as root:
            return self._dataset(root)

    def pictures(self, last: int = 0) -> RawImages:
        """Read images without their classes: all below ``test/`` where there is one, else all there are; the ``last`` so many of them."""
        with self._tree() as root:
            tests = [d for d in _folders(root) if d.name.lower() in TEST]
            files = _below(tests[0] if tests else root)[-last:]
            if not files:
                raise DataError(f"{self.path} holds no images", f"put some there ({', '.join(sorted(SUFFIXES))})")
            return self._stacked(files, (len(files), *self._decode(files[0]).shape))

    @contextmanager
    def _tree(self) -> Iterator[Tree]:
        path = Path(self.path)
        if not path.exists():
            raise DataError(f"no folder or .zip at {self.path}", "put your images there, or set data.source.path to where they are")
        if path.is_dir():
            yield path
            return
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{self.path} is not a .zip file", "give a folder, or a .zip of one") from error
        with archive:
            root: Tree = zipfile.Path(archive)
            inside = _folders(root)
            yield inside[0] if len(inside) == 1 else root  # a zip of the folder rather than of its content

    def _dataset(self, root: Tree) -> Dataset:
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

    def _read(self, root: Tree, names: tuple[str, ...]) -> Split:
        if strangers := [d.name for d in _folders(root) if d.name not in names]:
            raise DataError(f"{root}: class {strangers[0]!r} is not among the training classes", "name the folders alike in every split")
        files: list[Tree] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            found = _images(root / name) if (root / name).is_dir() else []
            if not found:
                raise DataError(f"{root / name} holds no images", f"put some there ({', '.join(sorted(SUFFIXES))}), or remove the class")
            files += found
            labels += [label] * len(found)
        shape = len(files), *self._decode(files[0]).shape
        images = self._stacked(files, shape) if len(files) <= in_memory(prod(shape[1:])) else self._cached(root, files, shape)
        return Split(images, torch.tensor(labels))

    def _stacked(self, files: list[Tree], shape: tuple[int, ...]) -> RawImages:
        images = np.empty(shape, np.uint8)
        for place, image in zip(images, self._decoded(files, shape), strict=True):
            place[:] = image
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def _cached(self, root: Tree, files: list[Tree], shape: tuple[int, ...]) -> Mapped:
        def write(npy: BinaryIO) -> None:
            np.lib.format.write_array_header_1_0(npy, {"descr": "|u1", "fortran_order": False, "shape": shape})
            with image_progress(f"decoding {root}", len(files), quiet=False) as progress:
                for done, image in enumerate(self._decoded(files, shape), 1):
                    npy.write(image.tobytes())
                    progress(done)

        state = "\n".join(f"{str(file).removeprefix(str(root))} {_stamp(file)}" for file in files)
        return Mapped.whole(cached(f"{Path(str(root)).resolve()} {self.size} {self.channels}", state, shape, write))

    def _decoded(self, files: list[Tree], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Decode images on all cores, in their order; DataError where one is not of the first one's size."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(files), AT_ONCE):
                part = files[start : start + AT_ONCE]
                for file, image in zip(part, pool.map(self._decode, part), strict=True):
                    if image.shape != shape[1:]:
                        raise DataError(
                            f"{file} is {image.shape[1]} x {image.shape[0]}, {files[0]} is {shape[2]} x {shape[1]}",
                            "set data.source.size to bring all to one size",
                        )
                    yield image

    def _decode(self, file: Tree) -> np.ndarray:
        try:
            with ONE_AT_A_TIME if isinstance(file, zipfile.Path) else nullcontext():
                content = BytesIO(file.read_bytes())
            with Image.open(content) as opened:
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
    found: list[Tree] = [f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    return sorted(found, key=lambda f: f.name)


def _stamp(file: Tree) -> str:
    """What changes when a file does."""
    if isinstance(file, zipfile.Path):
        return str(file.root.getinfo(file.at).CRC)
    with suppress(OSError):  # a link that leads nowhere: decoding says so
        stat = file.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return ""


def _below(folder: Tree) -> list[Tree]:
    return [*_images(folder), *(image for inner in _folders(folder) for image in _below(inner))]
