"""``gmmc env``."""

import platform
import sys

from gmmcli.cli.options import Json, answer

EPILOG = "Example:\n\ngmmc env"
PACKAGES = ("gmmcli", "torch", "torchvision", "safetensors", "numpy", "scikit-learn", "torchmetrics", "torchattacks", "pytorch-fid")


def env_command(json: Json = False) -> None:
    """Show the environment, for bug reports: versions, device, paths, and optional weights."""
    import torch

    from gmmcli.core.compute import Compute, has_fast_bf16
    from gmmcli.metrics.features import efficientnet
    from gmmcli.metrics.features.inception import default_weights
    from gmmcli.provenance import versions
    from gmmcli.run import default_runs_dir

    device = Compute().select()
    values = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions(PACKAGES),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "fast_bf16": has_fast_bf16(device),
        "runs_dir": str(default_runs_dir()),
        "inception_weights": str(default_weights()) if default_weights().exists() else None,
        "efficientnet_weights": str(efficientnet.default_weights() or "") or None,
    }
    if json:
        answer({"schema": 1, "command": "env", "values": values})
        return
    for name, value in values.items():
        print(f"{name:20} {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
