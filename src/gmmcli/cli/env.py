"""``gmmc env``."""

import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmmcli.cli.options import Json, Quiet, answer, note
from gmmcli.layout import Table, width_of

if TYPE_CHECKING:
    import torch

EPILOG = "Examples:\n\ngmmc env\n\ngmmc env --json"
PACKAGES = ("gmmcli", "torch", "torchvision", "safetensors", "numpy", "scikit-learn", "torchmetrics", "torchattacks", "pytorch-fid")
EXTRA = re.compile(r"""([\w.-]+).*;.*extra == ["']([\w-]+)["']""")
"""A package that an extra of ours installs, as the metadata of installed packages write it."""
VARIABLES = re.compile("GMMC_.*|OMP_NUM_THREADS|MKL_NUM_THREADS|CUDA_VISIBLE_DEVICES|NO_COLOR")
NUMBERS = re.compile(r"[\d.,:]*")
"""Values that are shown: others may be paths and names."""


def env_command(json: Json = False, quiet: Quiet = False) -> None:
    """Show a block for bug reports: versions, machine, precision, extras, settings. It names no path, user or host."""
    facts = _facts()
    if json:
        answer({"schema": 1, "command": "env", "values": facts})
        return
    commit = facts["commit"]
    lines = {
        "gmmc": facts["versions"]["gmmcli"] + (f", commit {commit}" if commit else ""),
        "python": facts["python"],
        "system": facts["platform"],
        "cpu": f"{facts['cpu']}; cores: {facts['cores']}; threads in use: {facts['threads']}",
        "memory": f"{facts['memory_bytes'] / 2**30:.1f} GiB",
        "cuda": facts["cuda"],
        "precision": f"auto is {facts['precision']}: {facts['precision_reason']}",
        "packages": _named({name: version or "missing" for name, version in facts["versions"].items() if name != "gmmcli"}),
        "extras": "; ".join(f"{name}: {_named(found) if all(found.values()) else 'no'}" for name, found in facts["extras"].items()),
        "weights": _named({name: "yes" if there else "no" for name, there in facts["weights"].items()}),
        "variables": ", ".join(f"{name}={value}" if value else name for name, value in facts["variables"].items()) or "none",
    }
    print("\n".join(["```text", *Table(rows=[*lines.items()], sentences=True).lines(width_of(sys.stdout)), "```"]))
    note("paste this block, fences and all, into the issue", quiet)


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _facts() -> dict[str, Any]:
    import torch

    from gmmcli.core.compute import Compute, has_bf16, has_fast_bf16, total_memory
    from gmmcli.metrics.features import efficientnet, inception
    from gmmcli.provenance import git_revision, versions

    device = Compute().select()
    fast = has_fast_bf16(device)
    return {
        "commit": git_revision(Path(__file__).parent),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": total_memory(torch.device("cpu")),
        "cuda": _cuda(device),
        "precision": "bf16" if fast else "fp32",
        "precision_reason": _reason(device, has_bf16(device)),
        "versions": versions(PACKAGES),
        "extras": _extras(),
        "weights": {"inception": inception.default_weights().exists(), efficientnet.NAME: efficientnet.default_weights() is not None},
        "variables": {
            name: value if NUMBERS.fullmatch(value) else "(set)" for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)
        },
    }


def _cpu() -> str:
    """The model of the processor, or where the system does not tell it its kind."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cuda(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        return f"{torch.version.cuda}, {torch.cuda.device_count()} x {gpu.name} with {gpu.total_memory / 2**30:.1f} GiB"
    built = f"for cuda {torch.version.cuda}, and finds no usable GPU" if torch.version.cuda else "without it"
    return f"not available: torch was built {built}"


def _reason(device: "torch.device", able: bool) -> str:
    from gmmcli.core.compute import bf16_speedup

    if not able:
        return f"this {device.type} has no bfloat16 instructions"
    if device.type == "cuda":
        return "this cuda device has bfloat16 instructions"
    return f"a convolution in bfloat16 is {bf16_speedup():.1f} times as fast as in float32"


def _extras() -> dict[str, dict[str, str | None]]:
    """The packages of each extra with their versions, None for one that is not installed."""
    from importlib.metadata import requires

    from gmmcli.provenance import versions

    wanted: dict[str, list[str]] = {}
    for line in requires("gmmcli") or ():
        if (found := EXTRA.fullmatch(line)) and found[2] != "dev":
            wanted.setdefault(found[2], []).append(found[1])
    return {extra: versions(packages) for extra, packages in wanted.items()}
