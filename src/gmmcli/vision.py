"""torchvision, also where its compiled operators do not fit the torch beside it (docs/decisions/0003-torchvision.md)."""

import re
from importlib import import_module
from typing import Any

import torch

_operators = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # lives as long as what it declares


def torchvision(module: str) -> Any:
    """Import ``torchvision.<module>``.

    A torchvision built for a CUDA torch cannot load its operators beside a CPU torch, and then dies on import when it registers
    their shapes. The parts that gmmc uses need no operator: the missing ones are declared, without a body, and the import goes on.
    """
    while True:
        try:
            return import_module(f"torchvision.{module}")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            _operators.define(f"{missing[1]}() -> ()")  # type: ignore[no-untyped-call]  # torch.library is not typed
