"""Files of weights, checked before they are read."""

import hashlib
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from gmmcli.errors import MissingPartError


def read_weights(path: Path, name: str, sha256: str, hint: str) -> dict[str, Tensor]:
    """Return the tensors of a weights file.

    Such a file is a pickle; gmmc opens no other: only with the expected hash, and only its tensors (docs/decisions/0004).

    Args:
        path: the file; it exists.
        name: what it should be.
        sha256: of its content.
        hint: where to get it.

    Raises:
        MissingPartError: it is another file.
    """
    content = path.read_bytes()  # once: what is hashed is what is opened
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise MissingPartError(f"{path} is not {name}: its sha256 is {found}, not {sha256}", hint)
    weights: dict[str, Tensor] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return weights
