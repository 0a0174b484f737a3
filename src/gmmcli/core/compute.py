"""Where and how the arithmetic runs."""

import ctypes
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from gmmcli.core.classifier import Classifier

CLEARLY_FASTER, PROBE_TURNS = 1.2, 6
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


@dataclass(frozen=True)
class Compute:
    """The ``[compute]`` table. Energies, means, optimiser and buffer stay float32 whatever it says."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one, else cpu."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """bf16: the backbone under bfloat16 autocast; slower, not faster, on a CPU without bf16 instructions. auto: bf16 where the device
    has such instructions, and on a CPU a short measurement finds them faster, else fp32; a run's recipe says which it became."""
    channels_last: bool = True
    """Memory format of the convolutions; same results to rounding, faster on most machines."""
    compile: bool = False
    """torch.compile for the backbone, which needs a C++ compiler, or triton on cuda; the first steps then take long."""

    def select(self) -> torch.device:
        """Choose the device and set it up: TF32 and cudnn autotuning on cuda, memory that is kept on a cpu.

        Raises:
            ValueError: cuda was asked for and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda was asked for, but torch finds no usable GPU")
        if self.device == "cpu" or not torch.cuda.is_available():
            _keep_freed_memory()
            return torch.device("cpu")
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")

    def resolved(self, device: torch.device) -> "Compute":
        """Return the table with ``auto`` decided for this device."""
        if self.precision != "auto":
            return self
        return replace(self, precision="bf16" if has_fast_bf16(device) else "fp32")

    def place(self, model: Classifier, device: torch.device) -> Classifier:
        """Move the model to the device, in the memory format and precision of this table."""
        model.bf16 = self.precision == "bf16"
        model.to(device)
        for parameter in model.parameters():
            if self.channels_last and parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if self.compile:
            model.backbone.compile()
        return model


def total_memory(device: torch.device) -> int:
    """Return the bytes of a GPU's memory, or of those of the machine that this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        return min(installed, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return installed


def has_bf16(device: torch.device) -> bool:
    """Whether there are instructions for bfloat16, not an emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 pays here: on a GPU that has instructions for it; on a CPU that has, only if a convolution is clearly faster."""
    return has_bf16(device) and (device.type == "cuda" or bf16_speedup() >= CLEARLY_FASTER)


@cache
def bf16_speedup() -> float:
    """How many times as fast a 3 x 3 convolution and its gradients are in bfloat16 as in float32, on this CPU; tens of milliseconds.

    Other jobs must not decide it: the time is that of one thread's own, which does not wait for others, and of several turns the shortest
    counts. A GPU has no such time: a busy one would look as if bfloat16 did not pay.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _speedup()
    finally:
        torch.set_num_threads(threads)


def _speedup() -> float:
    shortest = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    for _ in range(PROBE_TURNS):
        for dtype in shortest:
            images = torch.ones(8, 64, 16, 16, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
            weight = torch.ones(64, 64, 3, 3, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
            started = time.process_time()
            torch.autograd.backward(torch.conv2d(images, weight, padding=1).sum())
            shortest[dtype] = min(shortest[dtype], time.process_time() - started)
    return shortest[torch.float32] / shortest[torch.bfloat16]


def _keep_freed_memory() -> None:
    """Have glibc keep the memory that a training step frees for the next one; only the largest blocks go back at once.

    By default it gives the kernel what is free at the heap's end, and the kernel clears every page anew when it is next used.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has no mallopt
            libc = ctypes.CDLL(None)
            _ = libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most before glibc 2.35
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
