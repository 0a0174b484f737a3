"""Shapes are checked at run time in tests: jaxtyping's annotations of the core through beartype."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # `make test` runs two processes

from jaxtyping import install_import_hook

install_import_hook("gmmcli.core", "beartype.beartype")

import pytest
import torch
from hypothesis import HealthCheck, settings

from gmmcli.recipe import Recipe

# a busy machine is no finding
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

TINY = """
name = "tiny"
[data]
source = { kind = "digits" }
batch_size = 32
noise_std = 0.03
[model]
backbone = { kind = "wide-resnet", depth = 10, width = 1, init = "kaiming" }
[chains]
buffer_size = 100
sampler = { kind = "sgld", n_steps = 2, step_size = 0.1 }
[optim]
learning_rate = 1e-3
[compute]
precision = "fp32"
[[stages]]
epochs = 1
objective = { kind = "contrastive-divergence", margin = 2.0 }
[log]
every = 5
preview_every = 0
validate_every = 0
checkpoint_every = 0
"""


@pytest.fixture
def tiny_recipe() -> Recipe:
    """A generative training on digits of a second or two: 39 steps an epoch."""
    return Recipe.loads(TINY)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(0)
