"""What provenance.json says of a training while it runs and after it has ended."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gmmcli.distributed import world
from gmmcli.errors import DivergedError, StoppedError
from gmmcli.run import Run


@contextmanager
def recorded(run: Run, device: torch.device, n_steps: int) -> Iterator[None]:
    """Record status, device, processes, steps, wall time (of all resumes together) and peak memory of the training in this block."""
    started, spent = time.monotonic(), run.provenance.get("wall_time_s", 0.0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    run.describe(status="running", device=name, processes=world().size, steps=n_steps)
    status = "failed"
    try:
        yield
        status = "finished"
    except DivergedError:
        status = "diverged"
        raise
    except (StoppedError, KeyboardInterrupt):
        status = "interrupted"
        raise
    finally:
        if run.path.exists():  # not moved or deleted under the training, which then ends by another error
            wall_time = round(spent + time.monotonic() - started, 1)
            run.describe(status=status, wall_time_s=wall_time, peak_memory_mb=_peak_memory(device))


def _peak_memory(device: torch.device) -> int:
    """Return the peak memory in MiB: the device's, or on a CPU the process's; of several processes the main one's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
