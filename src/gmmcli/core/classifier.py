"""The one network: a backbone, a head, and what may be asked of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from gmmcli.core.heads import GaussianHead, Head, MaxMahalanobis
from gmmcli.core.wide_resnet import WideResNet
from gmmcli.types import Features, Images, Logits, Means, RawImages, to_model


class Classifier(nn.Module):
    """``model(images)`` are the unscaled logits, ``model.features(images)`` the features before the head.

    Attributes:
        gamma2: the shared variance estimated on the training set, or None before training has ended;
            ``class_log_probs(model(x), model.gamma2)`` is then p(y|x). A linear head needs no variance: 1.
        bf16: run the backbone under bfloat16 autocast; features and everything after stay float32.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, bf16: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.bf16 = bf16
        self.gamma2: float | None = None

    def features(self, images: Images) -> Features:
        """Return phi(x) in float32 (float64 for a model of that kind), shape (batch, feature)."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            features: Features = self.backbone(images)
        return features.float() if self.bf16 else features

    def forward(self, images: Images) -> Logits:
        """Return logits ``log p(phi | y) + const`` with unit variance, shape (batch, class)."""
        logits: Logits = self.head(self.features(images))
        return logits

    @property
    def has_means(self) -> bool:
        """Whether the head is one of Gaussians: logits are then squared distances, and energies ``E(x, y)`` never negative."""
        return isinstance(self.head, GaussianHead)

    @property
    def means(self) -> Means:
        """The class means, shape (class, feature); only a Gaussian head has them."""
        if not isinstance(self.head, GaussianHead):
            raise TypeError(f"{type(self.head).__name__} has no class means")
        return self.head.means


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients, as chains need it: they move images, never weights."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@torch.no_grad()
def predict(model: Classifier, images: RawImages, chunk: int = 500) -> Logits:
    """Return the logits of byte images in evaluation mode, a chunk at a time, on the model's device."""
    with frozen(model):
        return torch.cat([model(to_model(part)) for part in torch.split(images, chunk)])


@dataclass(frozen=True)
class Model:
    """The ``[model]`` table."""

    backbone: WideResNet = field(default_factory=WideResNet)
    head: Head = field(default_factory=MaxMahalanobis)

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
