"""The recipe is the program: a TOML file resolves to one frozen ``Recipe`` whose tables are the components."""

import dataclasses
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w

from gmmcli import toml
from gmmcli.core import protocols
from gmmcli.core.chains import Chains
from gmmcli.core.compute import Compute
from gmmcli.core.model import Model
from gmmcli.core.objectives import OBJECTIVES
from gmmcli.core.optim import OPTIMISERS, Adam
from gmmcli.data.loader import Data
from gmmcli.errors import RecipeError, quoted
from gmmcli.overrides import apply, delete
from gmmcli.registry import PartError
from gmmcli.schema import build
from gmmcli.shelf import find as find
from gmmcli.shelf import shipped as shipped
from gmmcli.types import Count, Factor, Natural, Positive

LONGEST_NAME = 200
"""Bytes: file systems take 255, and a time and numbers come on top."""
Criterion = Literal["accuracy", "samples", "both"]
REMOVED = {
    "chains.sampler.adapt": 'give chains.sampler.step_size a fixed value, or set chains.sampler.kind = "fixed-length"',
    "chains.fresh_step_scale": "set the step size of fresh chains when they are drawn: gmmc sample --step-size",
}
"""Keys of earlier versions, and what to use instead."""


@dataclass(frozen=True)
class Stage:
    """One ``[[stages]]`` table: an objective and for how long. Joint training is two of them (Appendix E)."""

    epochs: Count
    """Length of the stage."""
    objective: Annotated[protocols.Objective, OBJECTIVES]
    ramp_epochs: Natural = 0
    """Raise the objective's beta linearly from 0 over this many epochs."""
    freeze_norm: bool = False
    """Batch norm in evaluation mode: its statistics stand still, its scales and offsets go on learning."""
    optim: Annotated[protocols.Optim | None, OPTIMISERS] = None
    """The stage's own optimiser, which starts afresh with it; its schedule runs over this stage. Left out: the recipe's."""

    def __post_init__(self) -> None:
        if self.ramp_epochs > self.epochs:
            raise ValueError(f"ramp_epochs {self.ramp_epochs} is longer than the stage's {self.epochs} epochs")


@dataclass(frozen=True)
class Init:
    """The ``[init]`` table: the weights that training starts from."""

    from_: str = ""
    """A run, by path, id, unique prefix or recipe, or a `model.safetensors`: its newest weights. Its model, classes and images must be
    like this recipe's; the optimiser and the chains start afresh. Empty: random weights."""


@dataclass(frozen=True)
class Log:
    """The ``[log]`` table: how often, in steps; 0 never (a run always ends with a checkpoint)."""

    every: Count = 50
    """Steps from one line of metrics.jsonl to the next."""
    preview_every: Natural = 500
    """Steps from one picture of the chains to the next."""
    validate_every: Natural = 500
    """Steps from one validation to the next."""
    checkpoint_every: Natural = 500
    """Steps from one checkpoint to the next."""
    keep: Count = 3
    """Newest checkpoints to keep; the best stays as well."""
    validate_samples: Natural = 0
    """Fresh samples to draw at every validation, as many of each class; 0: none.

    They are drawn in stages that train on chains, and their features compared with those of the validation images.
    """
    best: Criterion = "accuracy"
    """What the best checkpoint has lowest: the validation error, the samples' Frechet distance, or the product of both."""
    tensorboard: bool = False
    """Write the figures of metrics.jsonl to the run's `tensorboard/` too; needs `pip install 'gmmcli[tensorboard]'`."""

    def __post_init__(self) -> None:
        if self.best != "accuracy" and not self.validate_samples:
            raise ValueError(f'best = "{self.best}" needs samples at every validation; set validate_samples, the number of each class')
        if self.best != "accuracy" and not self.validate_every:
            raise ValueError(f'best = "{self.best}" is found by validation, which never happens; set validate_every, 500 say')


@dataclass(frozen=True)
class Guard:
    """The ``[guard]`` table: what is divergence, and what then."""

    on_divergence: Literal["stop", "rollback"] = "stop"
    """stop: exit code 5, the last good checkpoint is kept. rollback: return to it, with other randomness and a lower learning rate."""
    max_loss: Positive = 1e4
    """A loss of larger magnitude counts as diverged, like one that is not finite (the authors' code waits for 1e8)."""
    lr_factor: Factor = 0.5
    """Every rollback multiplies the learning rate by this."""
    max_rollbacks: Natural = 10
    """Rollbacks after which a divergence stops the training."""


@dataclass(frozen=True)
class Recipe:
    """Everything a training needs to be repeated."""

    name: str
    """Becomes part of the run directory's name: letters, digits, and . _ - only."""
    stages: tuple[Stage, ...]
    seed: Natural = 1
    """Of all randomness: the same seed gives the same training, on a cpu bit for bit."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    init: Init = field(default_factory=Init)
    chains: Chains = field(default_factory=Chains)
    optim: Annotated[protocols.Optim, OPTIMISERS] = field(default_factory=Adam)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)
    guard: Guard = field(default_factory=Guard)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a recipe needs at least one [[stages]] table")
        check_name(self.name)
        if not self.model.head.has_means:
            self._check_without_means()
        if self.log.best != "accuracy" and not self.needs_chains:
            raise ValueError(
                f'log.best = "{self.log.best}" needs samples, and no stage trains on chains; set log.best = "accuracy", or add a stage '
                "of contrastive-divergence or jem"
            )
        if self.data.source.n_classes is not None:
            self.check(self.data.source.n_classes)

    def _check_without_means(self) -> None:
        for stage in self.stages:
            if stage.objective.needs_means:
                raise ValueError(stage.objective.needs_means)
        if self.needs_chains and self.chains.target.needs_means:
            raise ValueError(
                f"chains.target {self.chains.target.kind} needs class means, which a {self.model.head.kind} head does not have; "
                "use conditional or marginal"
            )

    @property
    def needs_chains(self) -> bool:
        """Whether any stage trains on negatives."""
        return any(stage.objective.needs_negatives for stage in self.stages)

    @property
    def validates_samples(self) -> bool:
        """Whether validation draws samples, if not in every stage."""
        return self.log.validate_samples > 0 and self.log.validate_every > 0 and self.needs_chains

    @property
    def epochs(self) -> int:
        """Length of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def check(self, n_classes: int) -> None:
        """Raise ValueError where the recipe cannot serve this many classes."""
        self.model.check(n_classes)
        if self.needs_chains:
            self.chains.slots(n_classes)

    def stage_at(self, epoch: float) -> tuple[Stage, float]:
        """Return the stage of a (fractional) epoch and how far its ramp has risen, 0 to 1."""
        start = 0
        for stage in self.stages:
            if epoch < start + stage.epochs:
                break
            start += stage.epochs
        return stage, min(1.0, (epoch - start) / stage.ramp_epochs) if stage.ramp_epochs else 1.0

    def document(self) -> dict[str, Any]:
        """The recipe as plain tables, every key present but those without a value, for which TOML has no word."""
        return dataclasses.asdict(
            self, dict_factory=lambda items: {key.removesuffix("_"): value for key, value in items if value is not None}
        )

    def dumps(self) -> str:
        """The recipe as TOML; ``Recipe.loads`` gives it back equal."""
        return tomli_w.dumps(self.document())

    @classmethod
    def loads(cls, text: str, origin: str = "recipe", overrides: typing.Sequence[str] = (), *, of_run: bool = False) -> Self:
        """Parse and validate TOML text.

        Args:
            text: the recipe.
            origin: what errors call it.
            overrides: ``key=value`` each, applied first.
            of_run: the recipe is one that a run keeps: removed keys are ignored, so that runs of earlier versions open.

        Raises:
            RecipeError: what is wrong, in one sentence.
        """
        document = toml.parse(text, origin)
        for override in overrides:
            apply(document, override)
        toml.check(document, "the recipe with its --set")
        try:
            for dotted, instead in REMOVED.items():
                if delete(document, dotted) and not of_run:
                    raise RecipeError(f"`{dotted}` was removed", f"delete it; {instead}")
            return typing.cast(Self, build(cls, document))
        except PartError as error:
            known_once = of_run and error.absent_from
            hint = f"install the package that adds it, by an entry point in {error.absent_from}" if known_once else error.hint
            raise PartError(f"{error.message} ({origin})", hint) from error
        except RecipeError as error:
            raise RecipeError(f"{error.message} ({origin})", error.hint) from error

    @classmethod
    def load(cls, name: str | Path, overrides: typing.Sequence[str] = (), *, of_run: bool = False) -> Self:
        """Load a file, or a shipped recipe by its name; see ``loads``."""
        path = find(str(name))
        return cls.loads(toml.read(path), str(path), overrides, of_run=of_run)


def check_name(name: str) -> None:
    """Raise ValueError where a name cannot be part of a folder's."""
    if not re.fullmatch(r"[\w.-]+", name) or len(name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"name {quoted(name)} becomes part of a folder's name: letters, digits, and . _ - only, {LONGEST_NAME} bytes at most"
        )
