from types import ModuleType

import pytest
import torch

from gmmcli import vision


def test_a_module_of_torchvision_imports_whatever_torch_is_beside_it() -> None:
    assert vision.torchvision("datasets").MNIST.__name__ == "MNIST"


def test_missing_operators_are_declared_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def half_built(name: str) -> ModuleType:
        asked.append(name)
        for operator in ("made_up_one", "made_up_two"):
            if not hasattr(torch.ops.torchvision, operator):
                raise RuntimeError(f"operator torchvision::{operator} does not exist")
        return ModuleType(name)

    monkeypatch.setattr(vision, "import_module", half_built)
    assert vision.torchvision("datasets").__name__ == "torchvision.datasets"
    assert asked == ["torchvision.datasets"] * 3


def test_other_errors_of_the_import_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("something else")

    monkeypatch.setattr(vision, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        vision.torchvision("datasets")
