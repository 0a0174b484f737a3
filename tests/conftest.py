"""Shapes are checked at run time in tests: jaxtyping's annotations of the core through beartype."""

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

SHARED_MEMORY = Path("/dev/shm")
if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 2**32:  # files live as long as their test; disks are slow to forget
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHARED_MEMORY))
gc.disable()  # until all tests are collected: imports make none
os.environ.setdefault("OMP_NUM_THREADS", "1")  # `make test` runs two processes

from jaxtyping import install_import_hook

install_import_hook("gmmcli.core", "beartype.beartype")

import pytest
import torch
from hypothesis import HealthCheck, settings

from browsing import chromium
from gmmcli import provenance
from gmmcli.recipe import Recipe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# a busy machine is no finding
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Tests compute on the CPU, where results are the same bit for bit, also where there is a GPU; those marked cuda come on their own."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is there now stays to the end: from here on garbage is looked for among what the tests make alone."""
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As ``--dist worksteal``, also where xdist is missing: neighbouring tests share a worker, and so the fixtures of their module."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_checkout_and_no_power_cut() -> Iterator[None]:
    """All runs of the tests have the same code: git is asked for its revision once. Their files need not reach the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "git_revision", cache(provenance.git_revision))
        patch.setattr(provenance, "version", cache(provenance.version))
        patch.setattr(os, "fsync", os.fstat)  # which knows a wrong descriptor, too
        yield


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser for pages, of marked tests (``browsing.in_a_browser``)."""
    with chromium() as found:
        yield found


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
