"""What is evaluated: a checkpoint of a run, and the images it is evaluated on."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gmmcli.checkpoint import Checkpoint
from gmmcli.core.classifier import Classifier
from gmmcli.core.energy import joint_energy, shared_variance
from gmmcli.core.refinement import Refined, Refinement
from gmmcli.core.samplers import Descent
from gmmcli.data.dataset import Dataset, Split, SplitName
from gmmcli.data.fingerprint import Fingerprint
from gmmcli.data.sources import foreign, parse_source
from gmmcli.distributed import any_of, from_main, world
from gmmcli.errors import DataError, RecipeError, RunError
from gmmcli.evaluate.classes import FITTING, with_classes_of
from gmmcli.metrics.calibration import fit_temperature
from gmmcli.metrics.outputs import Outputs, outputs
from gmmcli.model_card import ModelCard
from gmmcli.progress import image_progress, say
from gmmcli.provenance import filed_path
from gmmcli.run import Run, open_run

SEED = 1
TRAINING_IMAGES = 50_000
"""Maximum number of training images on which scores are fitted: all of CIFAR's."""
DETERMINISTIC = ("eval accuracy", "eval calibrate")
"""Commands whose values do not depend on the seed when all images are taken."""


@dataclass(frozen=True)
class Subject:
    """A model and the images it is evaluated on."""

    run: Run
    step: int
    card: ModelCard
    model: Classifier
    dataset: Dataset
    split: SplitName
    n: int | None = None
    """Maximum number of images, drawn at random by ``seed``; all by default."""
    seed: int = 1
    foreign: bool = False
    """The dataset is another than the run's own."""
    best: bool = False
    """The checkpoint of the best validation instead of the last."""
    _passes: dict[str, Outputs] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        run: str | Path | Run | None = None,
        runs_dir: Path | None = None,
        *,
        best: bool = False,
        device: torch.device | str = "cpu",
        data: str | None = None,
        split: SplitName = "test",
        n: int | None = None,
        seed: int = 1,
    ) -> "Subject":
        """Open a run as ``open_run`` does, and its own data or, by ``data = NAME|KIND:PATH``, other images of the same kind.

        Images that the run was trained on are left out of those to evaluate, and stderr says how many; so are, of the test images, those
        it was validated on. What was in two splits when training started stays in both.

        Raises:
            RecipeError: other images whose size is not the run's, or that have a class that the run does not know.
            RunError, CheckpointError, DataError: the run or the data is unavailable, or processes would open different checkpoints.
        """
        found = run if isinstance(run, Run) else open_run(run, runs_dir)
        checkpoint, card, model = one_checkpoint(found, best, device)
        check_same_checkpoint(found, checkpoint.step)
        dataset = images_for(found, card, data, split)
        return cls(found, checkpoint.step, card, model, dataset, split, n, seed, bool(data), best)

    @cached_property
    def images(self) -> Split:
        """The images to evaluate on, with their labels."""
        return self.dataset.split(self.split).subset(self.n, self.seed)

    @cached_property
    def validation(self) -> Split:
        """The run's own validation images."""
        return (self.run.dataset() if self.foreign else self.dataset).validation

    @cached_property
    def held_out(self) -> Outputs:
        """What the model says of the validation images."""
        return outputs(self.model, self.validation)

    @cached_property
    def training(self) -> Split:
        """The run's own training images, at most ``TRAINING_IMAGES`` of them."""
        return (self.run.dataset() if self.foreign else self.dataset).train.subset(TRAINING_IMAGES, self.seed)

    def training_outputs(self, quiet: bool = True) -> Outputs:
        """The model's outputs on the training images: one pass, whose outputs are kept."""
        if "training" not in self._passes:
            with image_progress(f"{self.dataset.title} train", len(self.training), quiet) as progress:
                self._passes["training"] = outputs(self.model, self.training, progress=progress)
        return self._passes["training"]

    @cached_property
    def temperature(self) -> float | None:
        """The temperature fitted on the validation images; None where all of them are classified correctly."""
        return fit_temperature(self.held_out.logits, self.validation.labels)

    def refined(self, steps: int, chains: int = 1, noise_std: float | None = None) -> "Subject":
        """This model with chains from each image before its class (``Refined``); as it is for 0 steps.

        Args:
            steps: of each chain, down E(x), by the step of the run's own sampler.
            chains: of each image.
            noise_std: of their noise, in the model range; by default the sampler's own.

        Raises:
            RecipeError: several chains without noise, or a sampler that is not one of gmmc's.
        """
        if not steps:
            return self
        sampler: Any = self.card.recipe.chains.sampler
        if not isinstance(sampler, Descent):
            raise RecipeError(f"run {self.run.id} has chains of sampler {sampler.kind}, whose steps have no gradient", "leave out --refine")
        if noise_std is not None:
            sampler = replace(sampler, noise_std=noise_std)
        if chains > 1 and not sampler.noise_std:
            raise RecipeError(f"without noise all {chains} chains of an image are the same", "give --refine-noise 0.01, or one chain")
        _ = self.gamma2  # of the plain model, where it must be estimated
        return replace(self, model=Refined(self.model, Refinement(steps, sampler, chains, self.seed)).eval(), _passes={})

    @property
    def refinement(self) -> Refinement | None:
        """How the model is refined."""
        return self.model.refinement if isinstance(self.model, Refined) else None

    @property
    def title(self) -> str:
        """What the images are called in pictures: ``digits test``."""
        return f"{self.dataset.title} {self.split}"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def gamma2(self) -> float:
        """The model's estimated variance: of a run that has not been finished, estimated here on its training images.

        Raises:
            RunError: the run was imported without it, and has no images.
        """
        model = self.model
        if model.gamma2 is None and self.run.status == "imported":
            raise RunError(f"run {self.run.id} has no gamma^2: its file has none", "import the file again with --data SOURCE")
        if model.gamma2 is None:
            say(f"gmmc: run {self.run.id} was not finished: gamma^2 is estimated on its training images")
            energies = joint_energy(self.training_outputs().logits, self.training.labels.cpu())
            model.gamma2 = float(shared_variance(energies, model.means.shape[1])) if model.has_means else 1.0
        return model.gamma2

    def outputs(self, *, mass: bool = False, quiet: bool = True) -> Outputs:
        """The model's outputs on the images, with the gradient norms of log p(x) for ``mass``: one pass, whose outputs are kept."""
        done = self._passes.get("mass") or (None if mass else self._passes.get("plain"))
        if done is None:
            gamma2 = self.gamma2 if mass else None
            with image_progress(self.title, len(self.images), quiet) as progress:
                done = self._passes["mass" if mass else "plain"] = outputs(self.model, self.images, gamma2, progress)
        return done

    def result(self, command: str, protocol: dict[str, Any], values: dict[str, Any], n: int | None = None) -> dict[str, Any]:
        """A result object of this subject (docs/run-directory.md)."""
        return {
            "schema": 1,
            "command": command,
            "run": self.run.id,
            "step": self.step,
            "dataset": self.dataset.title,
            "split": self.split,
            "n": len(self.images) if n is None else n,
            "protocol": protocol | ({"refinement": str(self.refinement)} if self.refinement else {}),
            "values": values,
        }

    def name(self, command: str, *words: str) -> str:
        """The name a result is saved under: the command, and what differs from its defaults.

        Args:
            command: as in ``result``.
            words: the command's own settings that differ; the subject's are the last checkpoint and all test images.
        """
        refinement = self.refinement
        about = [*words, *([refinement.name] if refinement else []), *[filed_path(self.dataset.name)] * self.foreign]
        about += [self.split] * (self.foreign or self.split != "test") + ["best"] * self.best
        some = len(self.images) < len(self.dataset.split(self.split))
        about += [f"n{self.n}"] * some + [f"seed {self.seed}"] * (
            self.seed != SEED and (some or refinement is not None or command not in DETERMINISTIC)
        )
        return " ".join([command, *about])


def images_for(run: Run, card: ModelCard, data: str | None = None, split: SplitName = "test") -> Dataset:
    """The run's own data, or by ``data = NAME|KIND:PATH`` others, labelled as the run does and without what it was trained on.

    Raises:
        RecipeError: other images whose size is not the run's, or that have a class that the run does not know.
        DataError: they are missing or broken, or the run was trained on all of this split.
    """
    source = parse_source(data) if data else run.recipe.data.source
    dataset = foreign(source, split) if data else run.dataset()
    if dataset.shape != card.image_shape:
        raise RecipeError(f"{dataset.name} has images of {_size(dataset.shape)}, run {run.id} takes {_size(card.image_shape)}", FITTING)
    kept = run.fingerprint
    as_it_was = data is None and (kept is None or kept.class_names == dataset.class_names)
    dataset = with_classes_of(run, card, dataset, None if as_it_was else source.kind)
    return dataset if kept is None else _without_used(run, kept, dataset, split)


def _without_used(run: Run, kept: Fingerprint, dataset: Dataset, name: SplitName) -> Dataset:
    """Leave out of the split to evaluate what the run has been trained on, and say how many images that is."""
    split = dataset.split(name)
    unused = kept.unused(name, split)
    if not len(unused):
        raise DataError(
            f"{dataset.name}, {name}: run {run.id} was trained on all of its images", "evaluate on images that it does not know"
        )
    if left_out := len(split) - len(unused):
        if world().is_main:
            say(f"gmmc: warning: {left_out:,} of {len(split):,} images of {dataset.title} {name} are left out: training has used them")
        changed: dict[str, Any] = {name: unused}
        return replace(dataset, **changed)
    return dataset


def one_checkpoint(run: Run, best: bool, device: torch.device | str) -> tuple[Checkpoint, ModelCard, Classifier]:
    """A checkpoint with its card and its model; a newer one where a training removes it while it is read.

    Raises:
        RunError, CheckpointError: there is none, or it is damaged.
    """
    return run.read(lambda checkpoint: (checkpoint, run.card_of(checkpoint), run.model_of(checkpoint, device)), best)


def check_same_checkpoint(run: Run, step: int) -> None:
    """Raise RunError in all processes where one has found another run or checkpoint than the main one: figures would be of two models."""
    here = f"run {run.id}, step {step}"
    main = from_main(here)
    if any_of(here != main):
        raise RunError(
            f"not all processes find the same checkpoint: the main one has {main}", "wait until the training that writes it has ended"
        )


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]} x {shape[2]} x {shape[0]}"
