"""The one network: a backbone, a head, and what may be asked of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from gmmcli.core.batch import batch_size
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
        return hasattr(self.head, "means")

    @property
    def means(self) -> Means:
        """The class means, shape (class, feature); only a Gaussian head has them."""
        if not self.has_means:
            raise TypeError(f"{type(self.head).__name__} has no class means")
        return cast(Means, self.head.means)


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
def predict(model: Classifier, images: RawImages) -> Logits:
    """Return the logits of byte images in evaluation mode, as many at a time as the device is quick with (``batch_size``).

    Model and images are on the same device.
    """
    with frozen(model):
        return torch.cat([model(to_model(part)) for part in torch.split(images, batch_size(model, to_model(images[:0])))])
