"""Several processes at one task, as torchrun starts them: which one this is, and what all of them know together.

Where there is one process alone, every function returns what it was given.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from gmmcli.errors import GmmcError

T = TypeVar("T")
TIMEOUT = 600.0
"""Seconds after which a process gives up waiting for another: longer than any evaluation between two exchanges."""


class World(NamedTuple):
    """One process among ``size``."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number on its machine: which GPU it takes."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and answers."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return this process's part of ``n`` things: contiguous, in the order of ranks, of sizes that differ by at most 1."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)


def world() -> World:
    """Return which process this is."""
    if not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank())))


@contextmanager
def joined(timeout: float = TIMEOUT) -> Iterator[World]:
    """Join the other processes that torchrun started, with gloo on a CPU and nccl on CUDA; leave them at the end of the block.

    Raises:
        GmmcError: another process ended, or did not answer within ``timeout`` seconds.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    try:
        # a backend for each kind of device: bytes that all share travel by gloo also where the training is on CUDA
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        try:
            yield world()
        finally:
            dist.destroy_process_group()
    except RuntimeError as error:  # nccl and the rendezvous raise DistError, gloo a plain RuntimeError that names its source file
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):
            raise
        raise GmmcError(
            f"another process ended or did not answer for {timeout:.0f} s",
            "its own message says why; start all of them again, training with --resume",
        ) from error


def mean(values: Tensor) -> Tensor:
    """Return the mean over all processes, of each element; without gradient."""
    return values if world().size == 1 else _reduced(values, dist.ReduceOp.SUM) / world().size


def minimum(values: Tensor) -> Tensor:
    """Return the minimum over all processes, of each element."""
    return values if world().size == 1 else _reduced(values, dist.ReduceOp.MIN)


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any process; every process must ask."""
    return flag if world().size == 1 else bool(_reduced(torch.tensor(int(flag)), dist.ReduceOp.MAX))


def gather(part: Tensor) -> Tensor:
    """Return the parts of all processes, joined along the first axis in the order of ranks; their lengths may differ."""
    if world().size == 1:
        return part
    lengths = [torch.zeros((), dtype=torch.int64) for _ in range(world().size)]
    dist.all_gather(lengths, torch.tensor(len(part)))
    longest = int(max(lengths))
    padded = part.new_zeros(longest, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([received[: int(n)] for received, n in zip(parts, lengths, strict=True)])


def divided(n: int, work: Callable[[slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Divide work on ``n`` things among all processes; every one of them returns the whole, in the order of the things.

    Args:
        n: number of things.
        work: does those of a slice; returns tensors whose first axes are in the order of the things.
    """
    mine = world().share(n)
    idle = world().size > 1 and mine.start == mine.stop
    parts = work(slice(0, 1) if idle else mine)  # who has nothing to do does the first thing, for its shape and type
    return tuple(gather(part[:0] if idle else part) for part in parts)


def once(write: Callable[[], list[T]]) -> list[T]:
    """Let the main process alone write files, and return what it gives; the others wait until they are written, and return nothing."""
    written = write() if world().is_main else []
    barrier()
    return written


def from_main(text: str) -> str:
    """Return the text that the main process has; the others' is ignored."""
    if world().size == 1:
        return text
    length = torch.tensor(len(text.encode()))
    dist.broadcast(length, 0)
    content = torch.tensor(list(text.encode()), dtype=torch.uint8) if world().is_main else torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(content, 0)
    return bytes(content.tolist()).decode()


def barrier() -> None:
    """Wait until every process has come here."""
    any_of(False)


def _reduced(values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    result = values.detach().clone()
    dist.all_reduce(result, how)
    return result
