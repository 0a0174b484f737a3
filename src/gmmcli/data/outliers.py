"""Sets of images that a model was not trained on, brought to its image size."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gmmcli.data.dataset import Dataset
from gmmcli.data.folder import Folder
from gmmcli.data.remote import published
from gmmcli.data.sources import SOURCES, parse_source, usage
from gmmcli.errors import DataError, RecipeError
from gmmcli.provenance import filed_path, public_path
from gmmcli.rng import stream
from gmmcli.types import RawImages

GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma
CELEBA = "celeba"
CELEBA_PLACES = ("data/celeba/img_align_celeba", "data/celeba/img_align_celeba.zip")
MADE = ("interp", "uniform", "gaussian")
CELEBA_TEST = 19_962  # the last images are its test partition
COMPANY = 100  # images in a batch of JEM's evaluation


class Outliers(NamedTuple):
    """Byte images of the model's own shape, and how they came to it."""

    images: RawImages
    about: str


def short_name(name: str) -> str:
    """What a set is called in pictures and reports: of a path its last part."""
    return re.sub(r"^(npz|folder):(?:.*/)?", "", name)


def public_name(name: str) -> str:
    """What a set is called in what is published: with the last part of its path, and a hash of the rest."""
    kind, colon, path = name.partition(":")
    return kind + colon + public_path(path)


def filed_name(name: str) -> str:
    """What a set is called in the names of files."""
    kind, colon, path = name.partition(":")
    return kind + colon + filed_path(path)


def usual_sets(dataset: Dataset, source_kind: str) -> list[str]:
    """The sets that are worth comparing with: made ones, and the usual real ones of as many channels."""
    real = ["svhn", "cifar10", "cifar100", CELEBA] if dataset.shape[0] == 3 else ["mnist", "digits"]
    return [*MADE, *(name for name in real if name != source_kind)]


def default_sets(dataset: Dataset, source_kind: str) -> list[str]:
    """The sets to compare with when none is named: of the usual ones those that need no download."""
    return [name for name in usual_sets(dataset, source_kind) if not _how_to_get(name)]


def left_out(dataset: Dataset, source_kind: str) -> str:
    """Which of the usual sets are not on disk, and how to get them; empty where all are."""
    ways = {name: way for name in usual_sets(dataset, source_kind) if (way := _how_to_get(name))}
    return f"not compared with {', '.join(ways)} (not on disk): {', '.join(ways.values())}" if ways else ""


def _how_to_get(name: str) -> str:
    """How to get one of the usual sets; empty where it is at hand."""
    if name in MADE:
        return ""
    if name == CELEBA:
        return "" if _celeba_place() else "celeba by hand, into data/celeba"
    source: Any = parse_source(name)
    files, root = published(source), Path(getattr(source, "root", ""))
    return f"`{files.command(root)}` ({files.megabytes})" if files and files.absent(root) else ""


def outliers(name: str, dataset: Dataset, seed: int) -> Outliers:
    """Make or load a set by its name.

    Args:
        name: ``interp``, ``uniform``, ``gaussian``, a dataset's name, ``celeba``, ``folder:PATH`` or ``npz:PATH``.
        dataset: the in-distribution data; its test images are what interp interpolates and what sizes are matched to.
        seed: of what is drawn.

    Raises:
        DataError: the set is unavailable.
        RecipeError: there is no such set.
    """
    test, _ = dataset.test.some(seed).batch()
    match name:
        case "interp":
            return Outliers(
                interpolated(test, seed), "JEM's Interp: means of two test images, of neighbouring batches of a shuffled test set"
            )
        case "uniform":
            return Outliers(_uniform(test, seed), "every pixel uniform over 0..255")
        case "gaussian":
            return Outliers(_gaussian(test, seed), "every pixel Gaussian, with its channel's mean and std over the test set, clamped")
    channels, size, _ = dataset.shape
    if name == CELEBA:
        return _fitted(_celeba(), channels, size, CELEBA_TEST)
    try:
        source = parse_source(name)
    except RecipeError as error:
        raise RecipeError(f"no set of images {name!r}", f"give one of {', '.join((*MADE, CELEBA, *map(usage, SOURCES)))}") from error
    if hasattr(source, "pictures"):
        return _fitted(source, channels, size)
    return matched(source.load().test.some(seed).batch()[0], dataset.shape)


def interpolated(images: RawImages, seed: int) -> RawImages:
    """Return JEM's Interp: the images shuffled, in batches of 100, each averaged with its counterpart of the batch before.

    The first batch has none before it: of n images, n - 100 come out (9,900 of CIFAR-10). Sets of less than 200 are halved.
    """
    company = min(COMPANY, len(images) // 2)
    shuffled = images[torch.randperm(len(images), generator=stream("cpu", seed, "interp"))].float()
    return ((shuffled[company:] + shuffled[:-company]) / 2).round().byte()


def _uniform(images: RawImages, seed: int) -> RawImages:
    return torch.randint(256, images.shape, generator=stream("cpu", seed, "uniform"), dtype=torch.uint8)


def _gaussian(images: RawImages, seed: int) -> RawImages:
    std, mean = torch.std_mean(images.float(), dim=(0, 2, 3), keepdim=True)
    noise = torch.randn(images.shape, generator=stream("cpu", seed, "gaussian"))
    return (mean + std * noise).round().clamp(0, 255).byte()


def _fitted(folder: Any, channels: int, size: int, last: int = 0) -> Outliers:
    fitted = replace(folder, channels=channels, size=size)
    return Outliers(fitted.pictures(last), f"shorter side resized to {size}, centre crop, {'grey' if channels == 1 else 'RGB'}")


def _celeba_place() -> str | None:
    return next((place for place in CELEBA_PLACES if Path(place).exists()), None)


def _celeba() -> Folder:
    if place := _celeba_place():
        return Folder(path=place)
    raise DataError(
        "celeba is not in data/celeba, and gmmc never downloads it",
        "put its aligned images (img_align_celeba or img_align_celeba.zip, 1.4 GB) there from the CelebA project's page",
    )


def matched(images: RawImages, shape: tuple[int, int, int]) -> Outliers:
    """Bring images to a model's channels and size: luma or repeated grey, antialiased bilinear."""
    channels, height, width = shape
    about = [f"{images.shape[2]} x {images.shape[3]} x {images.shape[1]} as they are"]
    if images.shape[1] != channels:
        about.append("grey by luma" if channels == 1 else "grey repeated to RGB")
        images = _grey(images) if channels == 1 else images.expand(-1, channels, -1, -1)
    if images.shape[2:] != (height, width):
        about.append(f"resized to {height} x {width}")
        parts = [
            F.interpolate(part.float(), (height, width), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
            for part in torch.split(images, 1000)
        ]
        images = torch.cat(parts)
    return Outliers(images, ", ".join(about))


def _grey(images: RawImages) -> Tensor:
    return (images.float() * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True).round().byte()
