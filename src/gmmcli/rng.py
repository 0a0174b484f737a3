"""Randomness as a function of names: the same key gives the same numbers, so a resume needs no generator's state."""

from hashlib import blake2b

import torch


def stream(device: torch.device | str, *key: int | str) -> torch.Generator:
    """Return a generator for this key, say ``(seed, "step", 17)``; streams of different keys are independent."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
