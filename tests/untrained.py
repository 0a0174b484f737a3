"""Runs with checkpoints of untrained models, for tests of what is read from a run."""

from pathlib import Path

import torch

from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.core.starts import GaussianStarts
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run

NAMES = tuple("0123456789")


def create(recipe: Recipe, runs_dir: Path) -> Run:
    return Run.create(recipe, runs_dir, ["gmmc", "train", "tiny"])


def save(
    run: Run, step: int, *, best_step: int = 0, chains: bool = True, seed: int = 1, starts: GaussianStarts | None = None
) -> Checkpoint:
    """A checkpoint as training would leave it, of an untrained model."""
    card = ModelCard(run.recipe, NAMES, (1, 8, 8), gamma2=1.5)
    parts = {"model": Part(run.recipe.model.build(10, 1, seed).state_dict(), card.dump())}
    if chains:
        parts["buffer"] = Part({"images": torch.full((10, 10, 1, 8, 8), 0.25)}, {})
    if starts is not None:
        parts["starts"] = Part(starts.tensors(), {})
    return Checkpoint.save(run.path / "checkpoints", step, parts, {"step": step, "best_step": best_step})
