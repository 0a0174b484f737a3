"""Samples of a run: fresh chains from noise, the replay buffer as training left it, or a file of ``gmmc sample``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from gmmcli.core.buffer import decode
from gmmcli.core.chains import CHUNK, Chains, fresh_samples
from gmmcli.core.classifier import Classifier
from gmmcli.core.compute import total_memory
from gmmcli.core.cost import DAY, LONGEST, Cost, operations_a_second
from gmmcli.core.samplers import changed
from gmmcli.data.arrays import Arrays
from gmmcli.data.dataset import Split
from gmmcli.data.reading import reading
from gmmcli.distributed import divided, world
from gmmcli.errors import DataError, DivergedError, RecipeError
from gmmcli.metrics.outputs import outputs
from gmmcli.model_card import ModelCard
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.types import Images, Labels, to_bytes, to_model

SLOWEST = 1e9  # operations a second: what takes less than a day even then is not measured
Origin = Literal["noise", "buffer"]


class Samples(NamedTuple):
    """Images in the model range, the classes they were drawn for, and how."""

    images: Images
    labels: Labels
    protocol: dict[str, Any]

    def to_split(self) -> Split:
        """The images rounded to bytes, with their labels."""
        return Split(to_bytes(self.images), self.labels)


def spread(classes: Sequence[int], n: int) -> Labels:
    """Return the labels of ``n`` images in total, class by class; where they do not divide evenly, the first classes get one more."""
    counts = [n // len(classes) + (i < n % len(classes)) for i in range(len(classes))]
    return torch.tensor(classes).repeat_interleave(torch.tensor(counts))


@dataclass(frozen=True)
class Draw:
    """How to draw samples; what is not given is as in the recipe."""

    origin: Origin = "noise"
    steps: int | None = None
    """0: the images that chains start from."""
    step_size: float | None = None
    noise: float | None = None
    seed: int = 1

    def __call__(self, run: Run, model: Classifier, labels: Labels, progress: Callable[[int], None] = lambda _: None) -> Samples:
        """Draw one image per label; each of several processes its share of the chunks of chains, and all return the same images.

        Args:
            run: whose recipe, buffer and starts are used.
            model: its classifier; fresh chains run on its device.
            labels: the class of each image, class by class.
            progress: called with the number of images done.

        Raises:
            RecipeError: the buffer holds fewer images, or an option of fresh chains was given with it.
            RunError: there is no buffer.
            DivergedError: images that are not finite.
        """
        return self._from_buffer(run, labels) if self.origin == "buffer" else self._from_noise(run, model, labels, progress)

    def _from_noise(self, run: Run, model: Classifier, labels: Labels, progress: Callable[[int], None]) -> Samples:
        device = next(model.parameters()).device
        chains, starts = self._chains(run.recipe.chains.of_classes), run.starts(device)
        steps = chains.lifetime if self.steps is None else self.steps
        _check_cost(run, len(labels), steps, device)
        chunks = torch.split(labels, CHUNK)

        def drawn(mine: slice) -> tuple[Images]:
            parts: list[Images] = []
            for i in range(len(chunks))[mine]:
                generator = stream(device, self.seed, "sample", i)  # the same for this chunk in whichever process draws it
                parts.append(fresh_samples(model, chains, starts, chunks[i].to(device), generator, steps).cpu())
                progress(min(len(labels), len(parts) * CHUNK * world().size))
            return (torch.cat(parts),)

        (images,) = divided(len(chunks), drawn)
        if not bool(images.isfinite().all()):
            raise DivergedError(f"the chains of run {run.id} are not finite", "its model has diverged, or --step-size is too large")
        protocol = {
            "from": "noise",
            "steps": steps,
            "start": chains.start.kind if run.recipe.needs_chains else "uniform",
            "step_size": chains.sampler.step_size,
            "noise_std": chains.sampler.noise_std,
            "fresh_noise_std": chains.fresh_noise_std,
            "seed": self.seed,
        }
        return Samples(images, labels, protocol)

    def _chains(self, chains: Chains) -> Chains:
        """The recipe's chains with the options that were given."""
        if self.noise is not None:
            chains = replace(chains, fresh_noise_std=self.noise)
        if self.step_size is not None:
            chains = replace(chains, sampler=changed(chains.sampler, step_size=self.step_size))
        return chains

    def _from_buffer(self, run: Run, labels: Labels) -> Samples:
        """Random images of each class, without replacement."""
        if any(option is not None for option in (self.steps, self.step_size, self.noise)):
            raise RecipeError("--steps, --step-size and --noise are options of fresh chains", "leave them out with --from buffer")
        classes = list(dict.fromkeys(labels.tolist()))
        drawn = []
        for k, stored in zip(classes, buffer_classes(run, classes), strict=True):
            n = int((labels == k).sum())
            if n > len(stored):
                raise RecipeError(f"the buffer holds {len(stored)} images of a class, not {n}", "ask for fewer, or use --from noise")
            drawn.append(stored[torch.randperm(len(stored), generator=stream("cpu", self.seed, "slots", k))[:n]])
        return Samples(torch.cat([decode(images) for images in drawn]), labels, {"from": "buffer", "seed": self.seed})


def _check_cost(run: Run, n: int, steps: int, device: torch.device) -> None:
    """Raise RecipeError where so many chains of so many steps take more than the memory, or than a year at the speed of matrix products."""
    card = run.card()
    memory, cost = 4 * n * prod(card.image_shape), Cost.of(card.recipe.model.backbone, card.image_shape)
    fewer = "ask for fewer images or steps"
    if memory > (most := total_memory(torch.device("cpu"))):
        raise RecipeError(f"{n:,} images take {memory / 2**30:,.1f} GiB of memory, and there are {most / 2**30:,.1f} GiB", fewer)
    operations = 2 * n * steps * cost.operations
    if operations > DAY * SLOWEST and (seconds := operations / operations_a_second(device, card.recipe.compute.precision)) > LONGEST:
        raise RecipeError(f"{n:,} chains of {steps:,} steps take at least {seconds / DAY:,.0f} days on this {device}", fewer)


def buffer_classes(run: Run, classes: Sequence[int]) -> list[torch.Tensor]:
    """Return the replay buffer's images of each class, as the buffer stores them.

    The class of an image is its place in the buffer; where chains ran without labels (JEM), it is the class that the model predicts.
    """
    images = run.buffer().images
    if not run.recipe.chains.classless:
        return [images[k] for k in classes]
    everyone = images.flatten(0, 1)
    predicted = outputs(run.model(), to_bytes(decode(everyone))).logits.argmax(1)
    return [everyone[predicted == k] for k in classes]


def read_samples(path: Path, card: ModelCard) -> Samples:
    """Read a file of ``gmmc sample --format npz``; DataError where it is none, or of other images or classes than the model's."""
    with reading(f"{path} cannot be read as samples", "write them with gmmc sample --format npz"), Arrays(path) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
    channels, height, width = card.image_shape
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (height, width, channels) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path} has images of shape {tuple(images.shape)} and labels of {tuple(labels.shape)}, "
            f"this run needs bytes of (n, {height}, {width}, {channels}) and n labels",
            "give samples of this run, or of one on the same data",
        )
    n_classes = len(card.class_names)
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= n_classes):
        raise DataError(f"{path} has a label outside 0..{n_classes - 1}", "give samples of a run on the same classes")
    return Samples(to_model(images.permute(0, 3, 1, 2)), labels, {"from": str(path)})
