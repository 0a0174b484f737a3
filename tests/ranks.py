"""Runs a function in several processes that have joined each other, as under torchrun, without starting Python anew."""

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch._dynamo  # noqa: F401 - what the first optimiser imports, and DistributedDataParallel: seconds, in every child

from gmmcli.distributed import joined


def on_ranks(size: int, function: Callable[..., Any], *args: Any, timeout: float = 30.0, join: bool = True) -> list[Any]:
    """Call ``function(*args)`` in ``size`` forked processes joined by gloo; return what each returned, in the order of ranks.

    Without ``join`` the function finds them as torchrun leaves them, to join each other itself.

    What a process raises is raised here, the first by rank. Results travel through a pipe: give plain values or small tensors' lists.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: torch runs one thread in tests
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_call, args=(there, rank, size, port, timeout if join else None, function, args))
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
    outcomes: list[Any] = []
    for rank, pipe in enumerate(pipes):
        failed = any(isinstance(outcome, BaseException) for outcome in outcomes)
        outcomes.append(_outcome(pipe, rank, 0.5 if failed else timeout + 5))
    for process in processes:
        process.kill()
        process.join()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def _outcome(pipe: Any, rank: int, patience: float) -> Any:
    try:
        return pipe.recv() if pipe.poll(patience) else RuntimeError(f"rank {rank} hangs")
    except EOFError:
        return RuntimeError(f"rank {rank} ended without an answer")


def _call(pipe: Any, rank: int, size: int, port: int, timeout: float | None, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in where.items()})
    try:
        with joined(timeout) if timeout is not None else nullcontext():
            result = function(*args)
        pipe.send(result)
    except BaseException as error:
        pipe.send(error)
    finally:
        pipe.close()
        os._exit(0)  # no pytest clean-up in a child
