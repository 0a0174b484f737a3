"""Trainings of milliseconds a step: 80 digits to train on, five steps an epoch."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from gmmcli.checkpoint import Checkpoint
from gmmcli.recipe import Recipe
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

SMALL = """
name = "small"
[data]
source = {{ kind = "npz", path = '{path}' }}
batch_size = 16
noise_std = 0.03
[model]
backbone = {{ kind = "wide-resnet", depth = 10, width = 1, stem_stride = 2, init = "kaiming" }}
[chains]
buffer_size = 100
sampler = {{ kind = "sgld", n_steps = 2, step_size = 0.1 }}
[optim]
learning_rate = 1e-3
[compute]
precision = "fp32"
[[stages]]
epochs = 1
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
[log]
every = 1
preview_every = 0
validate_every = 0
checkpoint_every = 0
keep = 100
"""

DIS = 'stages=[{epochs=2,objective={kind="center-regression"}}]'
GEN = 'stages=[{epochs=2,objective={kind="contrastive-divergence",margin=2.0}}]'
JOINT = """stages=[{epochs=1,objective={kind="center-regression"}},
                   {epochs=1,ramp_epochs=1,objective={kind="contrastive-divergence",margin=2.0}}]"""
TWO = 'stages=[{epochs=1,objective={kind="center-regression"}},{epochs=1,objective={kind="center-regression"}}]'
RUNAWAY = """stages=[{epochs=1,objective={kind="center-regression"}},
                     {epochs=1,objective={kind="contrastive-divergence",beta=1e6,margin=2.0}}]"""
"""Five sane steps, then losses of -1e8, whatever the learning rate."""
ROLLBACK = 'guard.on_divergence="rollback"'
DEAD = "chains.sampler.step_size=1e-9"
PAST_ITS_BEST = (DIS, "optim.learning_rate=0.01", "optim.milestones=[1]", "optim.decay=30.0", "guard.max_loss=1e30", "log.validate_every=1")
"""Learns for an epoch, then ruins itself: the best validation accuracy lies well before the end."""

Small = Callable[..., Recipe]
Begin = Callable[..., tuple[Setup, Run]]


def write_digits(path: Path, *, spoil: bool = False) -> Path:
    """80 training, 20 validation and 40 test digits as an archive; spoilt, the last two are noise of other labels."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels[:140] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    labels = labels[:140].copy()
    if spoil:
        images[80:] = np.random.default_rng(0).integers(0, 256, images[80:].shape)
        labels[80:] = (labels[80:] + 1) % 10
    parts = {"train": slice(80), "val": slice(80, 100), "test": slice(100, 140)}
    arrays = {f"{name}_images": images[part] for name, part in parts.items()}
    np.savez(path, **arrays, **{f"{name}_labels": labels[part] for name, part in parts.items()})
    return path


def contents(checkpoint: Checkpoint) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Everything a checkpoint holds, bit for bit."""
    parts = [part for name in ("model", "weights", "optimizer", "buffer", "starts") for part in checkpoint.shards(name)]
    tensors = {f"{part}/{key}": tensor for part in parts for key, tensor in checkpoint.tensors(part).items()}
    return {key: (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()) for key, tensor in tensors.items()}


def without_clock(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, but for what no two trainings have in common."""
    return [{key: value for key, value in line.items() if key != "images_per_sec"} for line in lines]


def trained(setup: Setup, run: Run, resume: bool = False) -> Run:
    train(setup, run, resume=resume, quiet=True)
    return run


def cut_at(run: Run, step: int, folder: Path) -> Run:
    """A copy of a run as a crash after this step's checkpoint would have left it, its metrics a little ahead."""
    later = {checkpoint.path.name for checkpoint in run.checkpoints if checkpoint.step > step}
    return Run(shutil.copytree(run.path, folder / f"cut-{step}", ignore=lambda _, names: later.intersection(names)))
