"""Where images are compared: pixels, a run's features, EfficientNet's, Inception's."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gmmcli.core.classifier import Classifier
from gmmcli.data.dataset import Split, chunks
from gmmcli.distributed import divided
from gmmcli.metrics.features import efficientnet, inception
from gmmcli.metrics.outputs import outputs
from gmmcli.types import Features, RawImages

CHUNK = 1000


class Space(NamedTuple):
    """Where images are compared: a map to features, and what it is."""

    name: str
    about: str
    embed: Callable[[RawImages | Split], Features]
    """The features of byte images, of a tensor or of a split."""
    class_probs: Callable[[Features], Tensor] | None = None
    """Inception's class probabilities, for its score."""


def shared(features: Callable[[RawImages | Split, slice], Features]) -> Callable[[RawImages | Split], Features]:
    """Divide the images among the processes, all of which have to ask and are given the whole."""
    return lambda images: divided(len(images), lambda mine: (features(images, mine),))[0]


def pixel_space() -> Space:
    """The pixels themselves, in float64: float32 rounds them all the same way, and distances of many pixels show it."""

    def embed(images: RawImages | Split) -> Features:
        return torch.cat([part.flatten(1).double() / 127.5 - 1 for part in chunks(images, CHUNK)])

    return Space("pixels", "pixels in [-1, 1]", embed)


def run_space(name: str, model: Classifier) -> Space:
    """The features of a run's model."""
    return Space(f"run:{name}", f"features of run {name}", lambda images: outputs(model, images).features)


def inception_space(network: inception.Inception) -> Space:
    """Inception's pooled features: where FID is FID."""
    return Space("inception", f"pytorch-fid's Inception, weights sha256 {network.sha256}", shared(network.features), network.class_probs)


def efficientnet_space(network: efficientnet.EfficientNet) -> Space:
    """EfficientNet-Lite0's pooled features: those of a general network, from a package; no distance in them is a FID."""
    about = f"EfficientNet-Lite0 (ImageNet) at {network.edge} x {network.edge}, weights sha256 {network.sha256}"
    return Space("efficientnet-lite0", about, shared(network.features))


def best_space(weights: Path | None = None) -> str:
    """Name the best there is: inception where its weights are at hand or were named, efficientnet-lite0 where installed, pixels."""
    if weights or inception.default_weights().is_file():
        return "inception"
    return "efficientnet-lite0" if efficientnet.default_weights() else "pixels"


def quick_space(device: torch.device | str = "cpu") -> Space:
    """Build the best that is quick enough to be asked while training goes on: efficientnet-lite0 where installed, pixels.

    It is asked by one process alone, and embeds all images there.
    """
    if not efficientnet.default_weights():
        return pixel_space()
    network = efficientnet.load_efficientnet().to(device)
    return efficientnet_space(network)._replace(embed=network.features)


def named_space(name: str, weights: Path | None = None, device: torch.device | str = "cpu") -> Space | None:
    """Build the space of this name; None where it is none of these, and so a run's.

    Args:
        name: of the space, or ``best`` for the best that is there.
        weights: the file of Inception's; where torch's hub keeps it by default.
        device: where a network computes.

    Raises:
        MissingPartError: its weights are absent, or others.
    """
    if name == "best":
        name = best_space(weights)
    if name == "inception":
        return inception_space(inception.load_inception(weights).to(device))
    if name == "efficientnet-lite0":
        return efficientnet_space(efficientnet.load_efficientnet().to(device))
    return pixel_space() if name == "pixels" else None
