"""Samples of a run: fresh chains from noise, or the replay buffer as training left it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch

from gmmcli.core.buffer import decode
from gmmcli.core.chains import CHUNK, fresh_samples
from gmmcli.core.classifier import predict
from gmmcli.core.samplers import changed
from gmmcli.errors import DivergedError, RecipeError
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.types import Images, Labels, to_bytes

Origin = Literal["noise", "buffer"]


class Samples(NamedTuple):
    """Images in the model range, the classes they were drawn for, and how."""

    images: Images
    labels: Labels
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """How to draw: everything left out is as the recipe says and as training left it."""

    origin: Origin = "noise"
    steps: int | None = None
    """0: the images that chains start from."""
    step_size: float | None = None
    noise: float | None = None
    seed: int = 1

    def __call__(
        self,
        run: Run,
        classes: Sequence[int],
        n: int,
        best: bool = False,
        device: torch.device | str = "cpu",
        at: Callable[[int], None] = lambda _: None,
    ) -> Samples:
        """Draw n images of each class, class by class.

        Args:
            run: whose.
            classes: their indices.
            n: images of each.
            best: the weights of the best validation instead of the last.
            device: where the chains run.
            at: told how many images are done.

        Raises:
            RecipeError: the buffer holds fewer, or a fresh chain's option was given with it.
            RunError: there is no buffer.
        """
        labels = torch.tensor(classes).repeat_interleave(n)
        if self.origin == "buffer":
            if any(option is not None for option in (self.steps, self.step_size, self.noise)):
                raise RecipeError("--steps, --step-size and --noise shape fresh chains", "leave them out with --from buffer")
            return Samples(self._from_buffer(run, classes, n), labels, {"from": "buffer", "seed": self.seed})
        card = run.card(best)
        chains = card.recipe.chains.of_classes
        if self.noise is not None:
            chains = replace(chains, fresh_noise_std=self.noise)
        if self.step_size is not None:
            chains = replace(chains, sampler=changed(chains.sampler, step_size=self.step_size))
        steps = chains.lifetime if self.steps is None else self.steps
        model, starts = run.model(best, device), run.starts(device)
        parts = []
        for i, part in enumerate(torch.split(labels, CHUNK)):
            generator = stream(device, self.seed, "sample", i)
            parts.append(fresh_samples(model, chains, starts, part.to(device), generator, steps).cpu())
            at(min(len(labels), (i + 1) * CHUNK))
        images = torch.cat(parts)
        if not bool(images.isfinite().all()):
            raise DivergedError(f"the chains of run {run.id} are not finite", "its model has diverged, or --step-size is far too long")
        noise = {"noise_std": chains.sampler.noise_std, "fresh_noise_std": chains.fresh_noise_std}
        protocol = {
            "from": "noise",
            "steps": steps,
            "start": chains.start.kind if card.recipe.needs_chains else "uniform",
            "step_size": chains.sampler.step_size,
            **noise,
            "seed": self.seed,
        }
        return Samples(images, labels, protocol)

    def _from_buffer(self, run: Run, classes: Sequence[int], n: int) -> Images:
        """Random images of each class, none twice."""
        found = []
        for k, own in zip(classes, buffer_classes(run, classes), strict=True):
            if n > len(own):
                raise RecipeError(f"{n} images a class are more than the buffer's {len(own)}", "ask for fewer, or use --from noise")
            found.append(own[torch.randperm(len(own), generator=stream("cpu", self.seed, "slots", k))[:n]])
        return torch.cat([decode(images) for images in found])


def buffer_classes(run: Run, classes: Sequence[int]) -> list[torch.Tensor]:
    """Return the replay buffer's images of each class, as the buffer keeps them.

    A class is its place in the buffer; where chains ran without labels (JEM), it is what the model takes the image for.
    """
    images = run.buffer().images
    if not run.recipe.chains.classless:
        return [images[k] for k in classes]
    everyone = images.flatten(0, 1)
    taken_for = predict(run.model(), to_bytes(decode(everyone))).argmax(1)
    return [everyone[taken_for == k] for k in classes]
