"""Where and how the arithmetic runs."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from gmmcli.core.classifier import Classifier


@dataclass(frozen=True)
class Compute:
    """The ``[compute]`` table. Energies, means, optimiser and buffer stay float32 whatever it says."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one, else cpu."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """bf16: the backbone under bfloat16 autocast; slower, not faster, on a CPU without bf16 instructions. auto: bf16 where the device
    has such instructions, else fp32; a run's recipe says which it became."""
    channels_last: bool = True
    """Memory format of the convolutions; same results to rounding, faster on most machines."""

    def select(self) -> torch.device:
        """Choose the device and set torch up for it: TF32 and cudnn autotuning on cuda.

        Raises:
            ValueError: cuda was asked for and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda was asked for, but torch finds no usable GPU")
        if self.device == "cpu" or not torch.cuda.is_available():
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
        return model


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native here, or emulated at a tenth of the speed."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
