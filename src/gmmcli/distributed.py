"""Several processes at one task, as torchrun starts them: which one this is, and what all of them know together.

Where there is one process alone, every function returns what it was given.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup

from gmmcli.errors import GmmcError

P = ParamSpec("P")
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

    @property
    def key(self) -> tuple[str | int, ...]:
        """What the names of random streams have in addition where processes must draw different numbers: nothing for one alone."""
        return ("rank", self.rank) if self.size > 1 else ()

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

    On CUDA each takes the GPU of its number on its machine.

    Raises:
        GmmcError: another process ended, or did not answer within ``timeout`` seconds; or there are fewer GPUs than processes here.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    try:
        # a backend for each kind of device: bytes that all share travel by gloo also where the training is on CUDA
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        try:
            if torch.cuda.is_available():
                _take_gpu(world().local_rank, torch.cuda.device_count())
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


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Give every process the mean of these tensors over all, in place: one exchange for all of them, which adds in a fixed order."""
    if world().size > 1 and tensors:
        together = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(together)
        together /= world().size
        for tensor, part in zip(tensors, torch.split(together, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def take_from_main(tensors: Iterable[Tensor]) -> None:
    """Give every process the main one's tensors, in place."""
    if world().size > 1:
        for tensor in tensors:
            received = tensor.contiguous()
            dist.broadcast(received, 0)
            tensor.copy_(received)


def minimum(values: Tensor) -> Tensor:
    """Return the minimum over all processes, of each element."""
    return values if world().size == 1 else _reduced(values, dist.ReduceOp.MIN)


def most(n: int) -> int:
    """Return the largest of the numbers of all processes; every process must ask."""
    return n if world().size == 1 else int(_reduced(torch.tensor(n), dist.ReduceOp.MAX))


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any process; every process must ask."""
    return bool(most(int(flag)))


def another_group() -> ProcessGroup | None:
    """Return a second connection of all processes, for exchanges in a thread, which must not mix with those of the main one."""
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=TIMEOUT)) if world().size > 1 else None


def gather(part: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Return the parts of all processes, joined along the first axis in the order of ranks; their lengths may differ."""
    if world().size == 1:
        return part
    lengths = [torch.zeros((), dtype=torch.int64) for _ in range(world().size)]
    dist.all_gather(lengths, torch.tensor(len(part)), group)
    longest = int(max(lengths))
    padded = part.new_zeros(longest, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded, group)
    return torch.cat([received[: int(n)] for received, n in zip(parts, lengths, strict=True)])


def from_all(line: str, group: ProcessGroup | None = None) -> list[str]:
    """Return the lines of all processes, in the order of ranks."""
    return bytes(gather(torch.tensor(list(f"{line}\n".encode()), dtype=torch.uint8), group).tolist()).decode().splitlines()


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


def main_first(function: Callable[[], T]) -> T:
    """Call a function in the main process and then in the others, which find what it has downloaded or written."""
    if world().is_main:
        result = function()
        barrier()
        return result
    barrier()
    return function()


def by_main(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function do nothing in other processes than the main one, which alone writes to the run directory."""

    @wraps(function)
    def only_there(*args: P.args, **kwargs: P.kwargs) -> None:
        if world().is_main:
            function(*args, **kwargs)

    return only_there


def barrier() -> None:
    """Wait until every process has come here."""
    any_of(False)


def _reduced(values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    result = values.detach().to(torch.uint8 if values.dtype == torch.bool else values.dtype, copy=True)  # gloo knows no bool
    dist.all_reduce(result, how)
    return result.to(values.dtype)


def _take_gpu(number: int, n_gpus: int) -> None:
    if number >= n_gpus:
        raise GmmcError(f"process {number} of this machine has no GPU: there are {n_gpus}", "give torchrun --nproc-per-node that number")
    torch.cuda.set_device(number)
