"""The training state: all that changes during training, and how it is saved and restored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gmmcli.checkpoint import Checkpoint, Part, shard
from gmmcli.core.average import averaging
from gmmcli.core.buffer import BufferSnapshot, ReplayBuffer, joined
from gmmcli.core.chains import PersistentChains
from gmmcli.core.classifier import Classifier, predict
from gmmcli.core.energy import joint_energy, shared_variance
from gmmcli.data.dataset import Dataset, Split
from gmmcli.distributed import World, gather, world
from gmmcli.errors import RunError
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.phases import Phase
from gmmcli.types import Labels, Logits

PROGRESS = ("step", "rollbacks", "diverged_at", "returned_to", "reason", "best_accuracy", "best_distance", "best_space", "best_step")

AT_ONCE = 500  # images, as many as ``predict`` takes at a time


def of_each_image(model: Classifier, split: Split, value: Callable[[Logits, Labels], Tensor]) -> Tensor:
    """Return a value of the logits and label of each of a split's images, read a chunk at a time; every process computes its share."""
    share = torch.arange(len(split), device=split.labels.device)[world().share(len(split))]
    parts = []
    for indices in torch.split(share, AT_ONCE):
        images, labels = split.batch(indices)
        parts.append(value(predict(model, images), labels))
    return gather(torch.cat(parts))


def _copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies in host memory; those from a GPU are pinned, and not complete before it is synchronised."""
    return {name: tensor.detach().to("cpu", non_blocking=True, copy=True) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Snapshot:
    """A training state as it was after one step, to be written once, from any thread, while training goes on.

    Of several processes the main one has all of it but the others' slots of the buffer.
    """

    run: Run
    step: int
    parts: dict[str, Part]
    progress: dict[str, Any]
    buffer: BufferSnapshot | None
    device: torch.device

    def write(self, group: ProcessGroup | None = None) -> Checkpoint:
        """Write it as a checkpoint, then remove old ones except the newest ``log.keep`` and the best.

        Args:
            group: by which processes wait for each other; in a thread not the common one.

        Raises:
            OSError: the disk is full or broken; what was there before is still there.
        """
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            saved = Checkpoint.save(self.run.path / "checkpoints", self.step, self.parts, self.progress, group)
        finally:
            if self.buffer is not None:
                self.buffer.close()
        for old in self.run.checkpoints[: -self.run.recipe.log.keep]:
            if old.step != self.progress["best_step"]:
                old.remove()
        return saved


@dataclass
class TrainState:
    """Model, optimiser and chains after ``step`` training steps, and the history of rollbacks and validation."""

    model: Classifier
    """The model that the optimiser updates and the chains sample from."""
    chains: PersistentChains | None
    phase: Phase
    """The phase of the last step, or of the first before any step."""
    optimizer: torch.optim.Optimizer = field(init=False)
    average: Classifier | None = field(init=False)
    """The moving average of the weights, where the phase has ``ema_decay``."""
    step: int = 0
    rollbacks: int = 0
    diverged_at: int = 0
    """The step of the last divergence; ``returned_to`` is the step that training rolled back to."""
    returned_to: int = 0
    reason: str = ""
    """Why training rolled back last."""
    best_accuracy: float = -1.0
    """Validation accuracy of the best checkpoint; below 0 until there is one."""
    best_distance: float | None = None
    """From the best checkpoint's samples to the validation images, where it was measured, in the space ``best_space``."""
    best_space: str | None = None
    best_step: int = 0

    def __post_init__(self) -> None:
        self.begin(self.phase)

    def begin(self, phase: Phase) -> None:
        """Begin a phase: a new optimiser, and an average that starts at the current weights."""
        self.phase = phase
        self.optimizer = phase.optim.build(self.model.parameters())
        self.average = averaging(self.model) if phase.optim.ema_decay else None

    @property
    def published(self) -> Classifier:
        """The model that is validated and evaluated: the average where there is one."""
        return self.model if self.average is None else self.average

    def estimate_gamma2(self, split: Split) -> None:
        """Estimate the published model's shared variance on a training split (Sec. 3.1); 1 for a head without Gaussians."""
        model, gamma2 = self.published, 1.0
        if model.has_means:
            gamma2 = float(shared_variance(of_each_image(model, split, joint_energy), model.means.shape[1]))
        model.gamma2 = gamma2

    def snapshot(self, run: Run, dataset: Dataset) -> Snapshot:
        """Copy this state to host memory, as it is now; of the buffer only what later steps replace is copied.

        The copies from a GPU are still under way when this returns: on its stream they precede the next step.
        """
        here = world()
        parts = self._common_parts(ModelCard(run.recipe, dataset.class_names, dataset.shape, self.published.gamma2)) if here.is_main else {}
        buffer = None
        if self.chains is not None:
            buffer = self.chains.buffer.snapshot()
            parts[shard("buffer", here)] = Part({"images": buffer}, {})
        progress = {name: getattr(self, name) for name in PROGRESS} | {"processes": here.size}
        return Snapshot(run, self.step, parts, progress, buffer, next(self.model.parameters()).device)

    def _common_parts(self, card: ModelCard) -> dict[str, Part]:
        """What all processes have alike."""
        moments = {
            f"{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        parts = {"model": Part(_copied(self.published.state_dict()), card.dump())}
        if self.average is not None:
            parts["weights"] = Part(_copied(self.model.state_dict()), {})
        if moments:  # none before the first step
            parts["optimizer"] = Part(_copied(moments), {})
        if self.chains is not None and (starts := self.chains.starts.tensors()):  # so that chains can start without the data
            parts["starts"] = Part(starts, {})
        return parts

    def save(self, run: Run, dataset: Dataset) -> Checkpoint:
        """Write a checkpoint of this state, and wait until it is on disk."""
        return self.snapshot(run, dataset).write()

    def restore(self, checkpoint: Checkpoint, recipe: Recipe, n_classes: int) -> None:
        """Load a checkpoint of this phase; of the buffer this process's share, however many have saved it.

        Raises:
            CheckpointError: its files are damaged.
            RunError: it was saved by an earlier version whose sampler adapted its step size.
        """
        self.published.load_state_dict(checkpoint.tensors("model"))
        if self.average is not None:
            self.model.load_state_dict(checkpoint.tensors("weights"))
        parameters = dict(self.model.named_parameters())
        for name, value in (checkpoint.tensors("optimizer") if checkpoint.has("optimizer") else {}).items():
            owner, _, key = name.rpartition(".")
            parameter = parameters[owner]
            # moments need the memory layout of their weights: the fused kernel uses one stride for both
            like = parameter if value.dim() else value.to(parameter.device)
            self.optimizer.state[parameter][key] = torch.empty_like(like).copy_(value)
        if recipe.needs_chains:
            images = _own_slots(checkpoint, recipe.chains.slots(n_classes), recipe.chains.sampler.step_size)
            device = next(self.model.parameters()).device
            kept = checkpoint.tensors("starts") if checkpoint.has("starts") else {}
            starts = recipe.chains.start.restored({name: tensor.to(device) for name, tensor in kept.items()}, images.shape[2:])
            self.chains = recipe.chains.around(ReplayBuffer(images.to(device)), starts)
        for name in PROGRESS:
            setattr(self, name, checkpoint.progress.get(name, getattr(self, name)))  # an older checkpoint has fewer


def _own_slots(checkpoint: Checkpoint, slots: int, step_size: float) -> Tensor:
    """Read this process's share of a buffer of so many slots of each class, from the shards that have a part of it."""
    mine, names, parts = world().share(slots), checkpoint.shards("buffer") or ["buffer"], []
    for rank, name in enumerate(names):
        theirs = World(rank, len(names)).share(slots)
        begin, end = max(mine.start, theirs.start), min(mine.stop, theirs.stop)
        if begin < end:
            saved = checkpoint.tensors(name)
            if "step_size" in saved and not torch.isclose(saved["step_size"], torch.tensor(step_size)):
                raise RunError(
                    f"{checkpoint.path} was trained with chains.sampler.adapt, which was removed: it can be evaluated but not resumed",
                    "train it again, with a fixed step size",
                )
            parts.append(saved["images"][:, begin - theirs.start : end - theirs.start])
    return joined(parts)
