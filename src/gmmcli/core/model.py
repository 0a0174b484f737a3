"""Which network: the table of a backbone and a head, and how they become a classifier."""

from dataclasses import dataclass, field
from typing import Annotated

import torch

from gmmcli.core import protocols
from gmmcli.core.classifier import Classifier
from gmmcli.core.heads import HEADS, MaxMahalanobis
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.registry import Registry

BACKBONES: Registry[type[protocols.Backbone]] = Registry("backbones", {"wide-resnet": WideResNet})


@dataclass(frozen=True)
class Model:
    """The ``[model]`` table."""

    backbone: Annotated[protocols.Backbone, BACKBONES] = field(default_factory=WideResNet)
    head: Annotated[protocols.Head, HEADS] = field(default_factory=MaxMahalanobis)

    def check(self, n_classes: int) -> None:
        """Raise ValueError where the features are too few for the means of this many classes."""
        dim, needed, width = self.backbone.dim, n_classes - 1, getattr(self.backbone, "width", None)
        if not self.head.has_means or needed <= dim:
            return
        problem = f"{n_classes} class means need at least {needed} features, and a backbone of"
        if width is None:
            raise ValueError(f"{problem} kind {self.backbone.kind} has {dim}; make it wider")
        raise ValueError(f"{problem} width {width} has {dim}; set model.backbone.width to {-(-width * needed // dim)} or more")

    def check_head(self, n_classes: int) -> None:
        """Raise ValueError where the head refuses the features for reasons of its own, which it tells when it is built."""
        with torch.random.fork_rng(devices=[]):
            self.head.build(n_classes, self.backbone.dim)

    def build(self, n_classes: int, channels: int, seed: int | None = None) -> Classifier:
        """Build the classifier on the cpu, its weights a function of ``seed`` alone.

        Without a seed they are whatever torch draws, to be overwritten by saved weights.

        Raises:
            ValueError: the head does not fit the features.
        """
        with torch.random.fork_rng(devices=[]):  # torch's initialisers know only the global generator of the cpu
            if seed is not None:
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the generators of every GPU too
            return Classifier(self.backbone.build(channels), self.head.build(n_classes, self.backbone.dim))
