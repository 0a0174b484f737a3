"""Everything that training changes, and its way to disk and back."""

from dataclasses import dataclass

import torch

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.buffer import ReplayBuffer
from gmmcli.core.chains import PersistentChains
from gmmcli.core.classifier import Classifier
from gmmcli.data.dataset import Dataset
from gmmcli.recipe import Recipe
from gmmcli.run import ModelCard, Run

PROGRESS = ("step", "rollbacks", "diverged_at", "returned_to", "best_accuracy", "best_step")


@dataclass
class TrainState:
    """Model, optimiser and chains after ``step`` training steps, and what the run has been through."""

    model: Classifier
    optimizer: torch.optim.Adam
    chains: PersistentChains | None
    step: int = 0
    rollbacks: int = 0
    diverged_at: int = 0
    """Where the last divergence was, and below the step that training went back to."""
    returned_to: int = 0
    best_accuracy: float = -1.0
    best_step: int = 0

    def save(self, run: Run, dataset: Dataset) -> Checkpoint:
        """Write a checkpoint of this state, then drop old ones: the newest few and the best stay."""
        card = ModelCard(run.recipe, dataset.class_names, dataset.shape, self.model.gamma2)
        moments = {
            f"{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        parts = {"model": Part(self.model.state_dict(), card.dump())}
        if moments:  # none before the first step
            parts["optimizer"] = Part(moments, {})
        if self.chains is not None:
            parts["buffer"] = Part({"images": self.chains.buffer.images}, {})
            if starts := self.chains.starts.tensors():  # so that chains can set out without the data
                parts["starts"] = Part(starts, {})
        progress = {name: getattr(self, name) for name in PROGRESS}
        saved = Checkpoint.save(run.path / "checkpoints", self.step, parts, progress)
        for old in run.checkpoints[: -run.recipe.log.keep]:
            if old.step != self.best_step:
                old.remove()
        return saved

    def restore(self, checkpoint: Checkpoint, recipe: Recipe) -> None:
        """Take over a checkpoint's state; CheckpointError where its files are damaged."""
        self.model.load_state_dict(checkpoint.tensors("model"))
        moments = checkpoint.tensors("optimizer") if checkpoint.has("optimizer") else {}
        for name, parameter in self.model.named_parameters() if moments else ():
            self.optimizer.state[parameter] = {
                "step": moments[f"{name}.step"].clone().to(parameter.device),
                # moments must lie in memory as their weights do: the fused kernel walks both in one stride
                "exp_avg": torch.empty_like(parameter).copy_(moments[f"{name}.exp_avg"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(moments[f"{name}.exp_avg_sq"]),
            }
        if self.chains is not None:
            device = self.chains.buffer.images.device
            self.chains = recipe.chains.around(ReplayBuffer(checkpoint.tensors("buffer")["images"].to(device)), self.chains.starts)
        for name in PROGRESS:
            setattr(self, name, checkpoint.progress[name])
