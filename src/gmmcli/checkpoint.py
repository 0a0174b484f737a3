"""Checkpoints: folders of safetensors files, written atomically and verified against a manifest of sha256 sums."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from gmmcli.errors import CheckpointError
from gmmcli.storage import sync

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Part:
    """The contents of one safetensors file: tensors by name, and strings for its header."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A saved state. Each file is verified against the manifest when it is first read, and again after it has changed."""

    path: Path

    @classmethod
    def save(cls, folder: Path, step: int, parts: Mapping[str, Part], progress: Mapping[str, Any]) -> "Checkpoint":
        """Write a checkpoint under a hidden name, sync it to disk, then rename it; replaces one of the same step."""
        final, hidden = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        for name, part in parts.items():
            tensors = {key: tensor.detach().contiguous() for key, tensor in part.tensors.items()}
            safetensors.torch.save_file(tensors, hidden / f"{name}.safetensors", dict(part.metadata))
        (hidden / "progress.json").write_text(json.dumps(progress, indent=1))
        manifest = {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in sorted(hidden.iterdir())}
        (hidden / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for file in (*hidden.iterdir(), hidden):
            sync(file)
        if final.exists():  # a crash here loses the old one, but a resume computes the same state again
            shutil.rmtree(final)
        hidden.rename(final)
        sync(folder)
        return cls(final)

    @classmethod
    def all(cls, folder: Path) -> list["Checkpoint"]:
        """The complete checkpoints of a folder, oldest first. Damage to a file is found when it is read."""
        return [cls(path) for path in sorted(folder.glob("step-*")) if (path / MANIFEST).is_file()]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read one part's tensors: memory-mapped and copied on write, so a large buffer costs no memory until it is touched."""
        return safetensors.torch.load_file(self._verified(f"{name}.safetensors"))

    def metadata(self, name: str) -> dict[str, str]:
        """Read the header strings of one part."""
        with safetensors.safe_open(self._verified(f"{name}.safetensors"), "pt") as file:
            return dict(file.metadata() or {})

    def digest(self, name: str) -> str:
        """The sha256 of a saved part, from the manifest; it tells two saves of the same step apart."""
        return str(self._manifest[f"{name}.safetensors"]["sha256"])

    def has(self, name: str) -> bool:
        """Whether this part was saved."""
        return f"{name}.safetensors" in self._manifest

    def remove(self) -> None:
        """Delete it, its manifest first, so that a crash leaves no checkpoint that looks complete."""
        (self.path / MANIFEST).unlink()
        shutil.rmtree(self.path)

    @cached_property
    def progress(self) -> dict[str, Any]:
        """The training's counters, as progress.json has them."""
        progress: dict[str, Any] = json.loads(self._verified("progress.json").read_text())
        return progress

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.path.name.removeprefix("step-"))

    @cached_property
    def _manifest(self) -> dict[str, dict[str, Any]]:
        try:
            manifest: dict[str, dict[str, Any]] = json.loads((self.path / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path / MANIFEST} cannot be read ({error})", f"remove {self.path} to use an older checkpoint"
            ) from error
        return manifest

    def _verified(self, name: str) -> Path:
        """The path of a file that matches the manifest; CheckpointError otherwise."""
        path = self.path / name
        if name not in self._manifest or not path.is_file():
            raise CheckpointError(f"{self.path} has no {name}", f"remove {self.path} to use an older checkpoint")
        file = path.stat()
        if _known_digest(path, file.st_ino, file.st_size, file.st_ctime_ns) != self._manifest[name]["sha256"]:
            raise CheckpointError(
                f"{path} is damaged: its sha256 differs from the manifest's", f"remove {self.path} to use an older checkpoint"
            )
        return path


@lru_cache
def _known_digest(path: Path, inode: int, size: int, changed: int) -> str:
    """The digest of a file, computed again only after the file has changed."""
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
