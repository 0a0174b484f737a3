"""What a run's images were: a hash of each by split, so that images keep their split when others come or go."""

import json
from collections import defaultdict, deque
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gmmcli.data.dataset import Dataset, Split, SplitName, concatenate
from gmmcli.data.mapped import Mapped
from gmmcli.errors import DataError, RunError
from gmmcli.progress import image_progress
from gmmcli.storage import replacing
from gmmcli.tensor_file import write_tensors

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
AT_ONCE = 1000  # images
SAMPLE = 1000
"""Images, evenly spread, by which a split that is not kept in memory is compared with what it was."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The images of each split in their order, as hashes (int64), their labels, and the names of the classes."""

    class_names: tuple[str, ...]
    images: dict[SplitName, Tensor]
    labels: dict[SplitName, Tensor]

    @classmethod
    def of(cls, dataset: Dataset) -> "Fingerprint":
        """Read and hash all images, at about 1 GB/s."""
        splits = {name: dataset.split(name) for name in SPLITS}
        return cls(
            dataset.class_names,
            {name: hashes(split) for name, split in splits.items()},
            {name: split.labels.cpu() for name, split in splits.items()},
        )

    @classmethod
    def read(cls, path: Path) -> "Fingerprint":
        """Read a file that ``write`` wrote; RunError where it is damaged."""
        try:
            with safe_open(path, "pt") as file:
                names = tuple(map(str, json.loads(file.metadata()["class_names"])))
                images = {name: file.get_tensor(f"{name}.images") for name in SPLITS}
                labels = {name: file.get_tensor(f"{name}.labels") for name in SPLITS}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged: {error}", "restore it from a copy, or remove it: the data are then not compared") from error
        for name in SPLITS:
            if not images[name].shape == labels[name].shape == (len(labels[name].reshape(-1)),) or images[name].dtype != torch.int64:
                raise RunError(f"{path} is damaged: {name} is no list of hashes", "restore it from a copy, or remove it")
        return cls(names, images, labels)

    def write(self, path: Path) -> None:
        """Write it as safetensors: ``train.images``, ``train.labels`` and so on, 16 bytes an image."""
        tensors = {f"{name}.images": hashed for name, hashed in self.images.items()}
        tensors |= {f"{name}.labels": labels for name, labels in self.labels.items()}
        with replacing(path) as hidden:
            write_tensors(hidden, tensors, {"class_names": json.dumps(self.class_names)})

    def matches(self, name: SplitName, split: Split) -> bool:
        """Whether a split is what it was, in the same order; one that is not kept in memory is compared by ``SAMPLE`` images."""
        if len(split) != len(self.images[name]) or not torch.equal(split.labels.cpu(), self.labels[name]):
            return False
        if not split.mapped:
            return torch.equal(hashes(split), self.images[name])
        at = torch.linspace(0, len(split) - 1, min(SAMPLE, len(split))).long()
        return torch.equal(hashes(split.take(at)), self.images[name][at])

    def settled(self, dataset: Dataset) -> tuple[Dataset, str]:
        """Return the data with every known image in the split where it was, and what has changed: nothing is the empty string.

        New images go to test, unless training or validation has used the same picture: under another label, or once more. Labels go
        by the names of the classes; data with a class that the run does not know come back as they are.

        Raises:
            DataError: nothing is left of a split.
        """
        if not {*dataset.class_names} <= {*self.class_names}:
            return dataset, "its classes are others"
        dataset = dataset.numbered(self.class_names)
        if all(self.matches(name, dataset.split(name)) for name in SPLITS):
            return dataset, ""
        places = defaultdict[tuple[int, int], deque[tuple[SplitName, int]]](deque)
        for name in SPLITS:
            for at, image in enumerate(zip(self.images[name].tolist(), self.labels[name].tolist(), strict=True)):
                places[image].append((name, at))
        found: dict[SplitName, list[tuple[int, SplitName, int]]] = {name: [] for name in SPLITS}
        used, n_new, n_again = {*self._used("test").tolist()}, 0, 0
        for source in SPLITS:
            split = dataset.split(source)
            for at, image in enumerate(zip(hashes(split).tolist(), split.labels.tolist(), strict=True)):
                if places[image]:
                    name, place = places[image].popleft()
                    found[name].append((place, source, at))
                elif image[0] in used:
                    n_again += 1
                else:
                    found["test"].append((len(self.images["test"]) + n_new, source, at))
                    n_new += 1
        n_gone = sum(map(len, places.values()))
        changes = {"new": n_new, "gone": n_gone, "left out: training has used the same": n_again}
        said = ", ".join(f"{n:,} {'image is' if n == 1 else 'images are'} {what}" for what, n in changes.items() if n)
        if empty := [name for name in SPLITS if not found[name]]:
            raise DataError(f"{dataset.name}: no image is left of the {empty[0]} images it had ({said})", "put them back")
        splits = {name: _joined(dataset, sorted(found[name])) for name in SPLITS}
        return Dataset(dataset.name, dataset.class_names, **splits), said or "its images are in other splits"

    def unused(self, name: SplitName, split: Split) -> Split:
        """Leave out what a split to evaluate must not have: images that training used and that were not in that split then."""
        used = self._used(name)
        return split.take(torch.nonzero(~torch.isin(hashes(split), used)).flatten()) if len(used) else split

    def _used(self, name: SplitName) -> Tensor:
        """The images that a split must not have: those of the splits before it in training, except what it had itself."""
        earlier = torch.cat([torch.empty(0, dtype=torch.int64), *(self.images[other] for other in SPLITS[: SPLITS.index(name)])])
        return earlier[~torch.isin(earlier, self.images[name])]


def hashes(split: Split) -> Tensor:
    """The sha256 of each image's bytes (channel, height, width), its first 64 bits as int64."""
    found: list[bytes] = []
    with image_progress("comparing images", len(split), quiet=not split.mapped) as progress:
        for images in split.chunks(AT_ONCE):
            rows = images.cpu().contiguous().flatten(1).numpy()
            found += [sha256(row).digest()[:8] for row in rows]
            progress(len(found))
    return torch.from_numpy(np.frombuffer(b"".join(found), "<i8").copy())


def _joined(dataset: Dataset, chosen: list[tuple[int, SplitName, int]]) -> Split:
    """The images at (place, split, position) in the order of their places; ``chosen`` is sorted.

    Of files larger than memory, which cannot be joined, only the images of the file that has the most.
    """
    parts = []
    for source in SPLITS:
        positions = [(at, place) for place, (_, split, at) in enumerate(chosen) if split == source]
        if positions:
            rows, places = torch.tensor(positions).T
            parts.append((dataset.split(source).at(rows), places))
    if any(split.mapped for split, _ in parts) and not Mapped.joined([split.images for split, _ in parts]):
        parts = [max(parts, key=lambda part: len(part[0]))]
    splits, order = zip(*parts, strict=True)
    return concatenate(*splits).at(torch.cat(order).argsort())
