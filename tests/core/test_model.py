from dataclasses import dataclass
from typing import Literal

import pytest
from torch import nn

from gmmcli.core.heads import Linear
from gmmcli.core.model import BACKBONES, Model
from gmmcli.core.wide_resnet import WideResNet


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Four features, and no width."""

    kind: Literal["pixels"] = "pixels"

    @property
    def dim(self) -> int:
        return 4

    def build(self, channels: int) -> nn.Module:
        return nn.Flatten()


def test_a_wide_resnet_is_the_usual_backbone() -> None:
    assert Model().backbone == BACKBONES["wide-resnet"]()


@pytest.mark.parametrize(
    ("backbone", "n_classes", "message"),
    [
        (Pixels(), 6, "6 class means need at least 5 features, and a backbone of kind pixels has 4; make it wider"),
        (WideResNet(width=1), 66, "of width 1 has 64; set model.backbone.width to 2 or more"),
        (WideResNet(width=2), 300, "of width 2 has 128; set model.backbone.width to 5 or more"),
    ],
)
def test_too_few_features_for_the_means_are_refused_with_the_remedy(backbone: WideResNet, n_classes: int, message: str) -> None:
    with pytest.raises(ValueError, match="class means need at least") as error:
        Model(backbone=backbone).check(n_classes)
    assert str(error.value).endswith(message)
    Model(backbone=backbone).check(backbone.dim + 1)
    Model(backbone=backbone, head=Linear()).check(n_classes)
