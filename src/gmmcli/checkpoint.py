"""Checkpoints: folders of safetensors files, written atomically and verified against a manifest of sha256 sums."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import safetensors
import safetensors.torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gmmcli.distributed import World, by_main, from_all, world
from gmmcli.errors import CheckpointError
from gmmcli.run_folder import MANIFEST, OLD, complete
from gmmcli.storage import sync
from gmmcli.tensor_file import InPieces, write_tensors

DAMAGED = "damaged-"  # before the name of one that was set aside
HINT = "gmmc train --resume --from-intact resumes from an older checkpoint; gmmc runs repair sets this one aside"


@dataclass(frozen=True)
class Part:
    """The contents of one safetensors file: tensors by name, and strings for its header."""

    tensors: Mapping[str, Tensor | InPieces]
    metadata: Mapping[str, str]


def shard(name: str, here: World) -> str:
    """Return the name of a process's own shard of a part; that of the part where there is one process alone."""
    return name if here.size == 1 else f"{name}-r{here.rank:02d}"


class Draft:
    """A checkpoint that is being written, in a hidden folder: a crash leaves all older ones whole.

    Used in a ``with`` block, which on an error removes what was written so far. Several processes may write parts, each with a draft of
    its own, between ``begin`` and ``commit``, both of the main one; it needs the ``files`` of the others for the manifest.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        self.path = folder / f".step-{step:08d}"
        self.files: dict[str, dict[str, Any]] = {}
        """The size and sha256 of each file written, as the manifest lists them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say of what file
            error.filename = str(self.path)

    def begin(self) -> None:
        """Make the hidden folder, and remove what crashes have left."""
        replaced = [path for path in self.folder.glob(f"{OLD}*") if (self.folder / path.name.removeprefix(OLD)).exists()]
        for path in (*replaced, *self.folder.glob(".step-*")):
            shutil.rmtree(path)
        self.folder.mkdir(exist_ok=True)  # without its parents: a run that was deleted is not made anew
        self.path.mkdir()

    def write(self, name: str, part: Part) -> None:
        """Write a part and sync it to disk."""
        path = self.path / f"{name}.safetensors"
        digest = write_tensors(path, part.tensors, part.metadata)
        self.files[path.name] = {"bytes": path.stat().st_size, "sha256": digest}

    def commit(self, progress: Mapping[str, Any]) -> "Checkpoint":
        """Write progress.json and the manifest, then rename the folder; it takes the place of a checkpoint of the same step."""
        content = json.dumps(progress, indent=1).encode()
        self.files["progress.json"] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        manifest = json.dumps(dict(sorted(self.files.items())), indent=1).encode()
        for name, data in (("progress.json", content), (MANIFEST, manifest)):
            (self.path / name).write_bytes(data)
            sync(self.path / name)
        sync(self.path)
        name = f"step-{self.step:08d}"
        final, old = self.folder / name, self.folder / f"{OLD}{name}"
        if final.exists():
            final.rename(old)  # it counts until the new one has its name, see ``all``
        self.path.rename(final)
        sync(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        return Checkpoint(final)


@dataclass(frozen=True)
class Checkpoint:
    """A saved state. Each file is verified against the manifest when it is first read, and again after it has changed."""

    path: Path

    @classmethod
    def save(
        cls, folder: Path, step: int, parts: Mapping[str, Part], progress: Mapping[str, Any], group: ProcessGroup | None = None
    ) -> "Checkpoint":
        """Write a checkpoint; of several processes each writes its parts, and the main one the manifest.

        Args:
            folder: where checkpoints are.
            step: its step.
            parts: by name; those of this process.
            progress: the training's counters, of the main process.
            group: by which processes wait for each other; in a thread not the common one.

        Raises:
            OSError: the disk is full or broken, and then all is as it was before.
        """
        is_main = world().is_main
        with Draft(folder, step) as draft:
            if is_main:
                draft.begin()
            from_all("", group)  # the folder is there
            for name, part in parts.items():
                draft.write(name, part)
            for files in from_all(json.dumps(draft.files), group):
                draft.files |= json.loads(files)
            saved = from_all(str(draft.commit(progress).path) if is_main else "", group)
        return cls(Path(saved[0]))

    @classmethod
    def all(cls, folder: Path) -> list["Checkpoint"]:
        """The complete checkpoints of a folder, oldest first. Damage to a file is found when it is read."""
        return [cls(path) for path in complete(folder).values()]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read one part's tensors: memory-mapped and copied on write, so a large buffer costs no memory until it is touched."""
        path = self._verified(f"{name}.safetensors")
        with self._readable(path):
            return safetensors.torch.load_file(path)

    def tensor(self, name: str, key: str) -> Tensor:
        """Read one tensor of a part, as ``tensors`` does."""
        tensors = self.tensors(name)
        if key not in tensors:
            raise CheckpointError(f"{name} of {self.path} holds no {key}", HINT)
        return tensors[key]

    def metadata(self, name: str) -> dict[str, str]:
        """Read the header strings of one part."""
        path = self._verified(f"{name}.safetensors")
        with self._readable(path), safetensors.safe_open(path, "pt") as file:
            return dict(file.metadata() or {})

    def digest(self, name: str) -> str:
        """The sha256 of a saved part, from the manifest; it tells two saves of the same step apart."""
        if (file := f"{name}.safetensors") not in self._manifest:
            raise CheckpointError(f"{self.path} has no {file}", HINT)
        return str(self._manifest[file]["sha256"])

    def has(self, name: str) -> bool:
        """Whether this part was saved, whole or in shards."""
        return bool(self.shards(name))

    def shards(self, name: str) -> list[str]:
        """The parts that hold this one: itself, or one of each process that saved it, in their order; none where it was not saved."""
        saved = {file.removesuffix(".safetensors") for file in self._manifest}
        return (
            [name]
            if name in saved
            else sorted((part for part in saved if part.startswith(f"{name}-r")), key=lambda part: (len(part), part))
        )

    @property
    def faults(self) -> list[str]:
        """What is wrong with its files, each read and compared with the manifest; nothing of an intact one."""
        found = []
        try:
            names = {*self._manifest}
        except CheckpointError as error:
            return [error.message]
        for name in sorted(names):
            try:
                self._verified(name)
            except CheckpointError as error:
                found.append(error.message)
        strangers = sorted(path.name for path in self.path.iterdir() if path.name not in names | {MANIFEST})
        return found + [f"{self.path / name} is not of this checkpoint" for name in strangers]

    @by_main
    def set_aside(self) -> None:
        """Give it a name by which it does not count: the old one after ``damaged-``."""
        aside = self.path.with_name(f"{DAMAGED}{self.path.name.removeprefix(OLD)}")
        free = next(path for path in (aside, *(aside.with_name(f"{aside.name}-{i}") for i in range(2, 1000))) if not path.exists())
        self.path.rename(free)

    @by_main
    def remove(self) -> None:
        """Delete it, its manifest first, so that a crash leaves no checkpoint that looks complete."""
        (self.path / MANIFEST).unlink()
        shutil.rmtree(self.path)

    @cached_property
    def progress(self) -> dict[str, Any]:
        """The training's counters, as progress.json has them."""
        path = self._verified("progress.json")
        with self._readable(path):
            progress: dict[str, Any] = {} | json.loads(path.read_bytes())  # TypeError where it is no object
            return progress

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.path.name.rpartition("-")[2])

    @cached_property
    def _manifest(self) -> dict[str, dict[str, Any]]:
        with self._readable(self.path / MANIFEST):
            manifest: dict[str, dict[str, Any]] = json.loads((self.path / MANIFEST).read_text())
            if not all(isinstance(entry["sha256"], str) and "/" not in name for name, entry in manifest.items()):
                raise ValueError("it is no list of files with their sha256")
            return manifest

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Turn what is raised on a file that does not hold what it should into CheckpointError."""
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})", HINT) from error

    def _verified(self, name: str) -> Path:
        """The path of a file that matches the manifest; CheckpointError otherwise."""
        path = self.path / name
        if name not in self._manifest or not path.is_file():
            raise CheckpointError(f"{self.path} has no {name}", HINT)
        file = path.stat()
        if _known_digest(path, file.st_ino, file.st_size, file.st_ctime_ns) != self._manifest[name]["sha256"]:
            raise CheckpointError(f"{path} is damaged: its sha256 differs from the manifest's", HINT)
        return path


@lru_cache
def _known_digest(path: Path, inode: int, size: int, changed: int) -> str:
    """The digest of a file, computed again only after the file has changed."""
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
