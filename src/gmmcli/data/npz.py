"""NumPy archives in MedMNIST's layout: {train,val,test}_{images,labels}, and optionally class_names."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import torch

from gmmcli.data.cache import cached
from gmmcli.data.dataset import Dataset, HeldOut, Split, check_labels, hold_out
from gmmcli.data.mapped import Mapped, in_memory
from gmmcli.errors import DataError
from gmmcli.progress import image_progress

UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading an .npz raises that is broken, no archive at all, or lacks an array."""


@dataclass(frozen=True, kw_only=True)
class Npz:
    """Source table: byte images (image, height, width[, channel]); without val_images a share of train is held out."""

    n_classes: ClassVar[int | None] = None
    kind: Literal["npz"] = "npz"
    path: str = "data/images.npz"
    """The archive; a relative path starts in the directory that training was started from. Images of more than 1 GiB are read from it as
    they are needed; if it is compressed, from a copy in ``$XDG_CACHE_HOME/gmmc`` or ``~/.cache/gmmc``."""
    validation: HeldOut = 0.1
    """Share of the training images, stratified by class, held out for validation where there are no val_images."""

    def load(self) -> Dataset:
        """Read the archive; DataError names the array that will not do."""
        if not Path(self.path).exists():
            raise DataError(f"no file at {self.path}", "put it there, or set data.source.path to where it is")
        try:
            with Path(self.path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: self._array(archive, name) for name in archive.files}
        except UNREADABLE as error:
            raise DataError(
                f"{self.path} cannot be read as an .npz of plain arrays ({error})", "save it with numpy.savez, without objects"
            ) from error
        train = self._split(arrays, "train")
        test = self._split(arrays, "test")
        if "class_names" in arrays:
            names = tuple(str(name) for name in arrays["class_names"].reshape(-1))
        else:
            names = tuple(str(k) for k in range(int(train.labels.max()) + 1 if len(train.labels) else 0))
        check_labels(train.labels, len(names), f"{self.path}, train")
        if "val_images" in arrays:
            validation = self._split(arrays, "val")
        else:
            train, validation = hold_out(train, self.validation, self.path)
        return Dataset(self.path, names, train, validation, test)

    def _split(self, arrays: dict[str, np.ndarray], name: str) -> Split:
        for key in (f"{name}_images", f"{name}_labels"):
            if key not in arrays:
                raise DataError(f"{self.path} has no array {key!r}", f"it has {', '.join(sorted(arrays)) or 'none'}")
        images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
        self._check(f"{name}_images", images.dtype, images.shape)
        if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
            raise DataError(
                f"{self.path}: {name}_labels is {labels.dtype} of shape {labels.shape} for {len(images)} images",
                "give one integer an image",
            )
        targets = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        if isinstance(images, np.memmap):
            return Split(Mapped.whole(images), targets)
        images = images[..., None] if images.ndim == 3 else images
        return Split(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), targets)

    def _array(self, archive: Any, name: str) -> np.ndarray:
        """Read an array; large ones of images are mapped where they stand, or in the cache if they are compressed."""
        zipped: zipfile.ZipFile = archive.zip
        if not name.endswith("_images") or (info := zipped.getinfo(f"{name}.npy")).file_size <= in_memory(1):
            array: np.ndarray = archive[name]
            return array
        with zipped.open(info) as member:
            major, _ = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(member)
            header = member.tell()
        self._check(name, dtype, shape)
        if info.compress_type == zipfile.ZIP_STORED:
            with Path(self.path).open("rb") as file:
                file.seek(info.header_offset + 26)  # the member's own header: 30 bytes, of which the last four tell what follows them
                offset = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + header
            return np.memmap(self.path, np.uint8, "r", offset, shape, "F" if fortran else "C")

        def write(npy: BinaryIO) -> None:
            with zipped.open(info) as member, image_progress(f"unpacking {name}", shape[0], quiet=False) as progress:
                while part := member.read(2**20):
                    npy.write(part)
                    progress(npy.tell() * shape[0] // info.file_size)

        return cached(f"{Path(self.path).resolve()} {name}", str(info.CRC), info.file_size, write)

    def _check(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if dtype != np.uint8 or len(shape) not in (3, 4):
            raise DataError(
                f"{self.path}: {name} is {dtype} of shape {shape}",
                "give uint8 of shape (image, height, width) or (image, height, width, channel)",
            )
