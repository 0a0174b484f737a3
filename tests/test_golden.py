"""Golden losses: the first ten steps of each way to train, against tests/golden/losses.txt.

A refactoring must not change them. Where a change is meant, write them anew with ``python tests/test_golden.py`` and
say in the commit why. Only early steps are kept: chains amplify the last digits in which processors differ.
"""

from pathlib import Path

import pytest

from gmmcli.recipe import Recipe
from gmmcli.train.guard import GuardedStep
from gmmcli.train.setup import Setup
from gmmcli.train.step import training_step

GOLDEN = Path(__file__).parent / "golden" / "losses.txt"
N_STEPS = 10
RECIPE = """
name = "golden"
[data]
source = { kind = "digits" }
batch_size = 200  # six steps an epoch
noise_std = 0.03
[model]
backbone = { kind = "wide-resnet", depth = 10, width = 1, stem_stride = 2, init = "kaiming" }
[chains]
buffer_size = 1000
sampler = { kind = "sgld", n_steps = 3, step_size = 0.02 }
[optim]
learning_rate = 1e-3
warmup_steps = 5
[compute]
device = "cpu"
precision = "fp32"
"""
REGRESSION = '{epochs=1,objective={kind="center-regression"}}'
CONTRASTIVE = '{epochs=1,ramp_epochs=1,objective={kind="contrastive-divergence",beta=0.5,margin=2.0}}'
PLAIN = '{epochs=2,objective={kind="contrastive-divergence",beta=0.5}}'
MODES = {
    "dis": (f"stages=[{REGRESSION},{REGRESSION}]",),
    "gen": (f"stages=[{PLAIN}]",),
    "joint": (f"stages=[{REGRESSION},{CONTRASTIVE}]",),
    "jem": ('stages=[{epochs=2,objective={kind="jem"}}]', "model.head.kind=linear", "chains.target.kind=marginal"),
    "injected": (f"stages=[{PLAIN}]", "chains.target.kind=injected-latent", "chains.target.std=0.1"),
}


def losses(mode: str) -> list[float]:
    """The losses of the first steps of a mode."""
    setup = Setup.prepare(Recipe.loads(RECIPE, overrides=MODES[mode]))
    state = setup.initial_state()
    update = GuardedStep(state.optimizer, setup.recipe.guard.max_loss, setup.device)
    return [float(training_step(setup, state, update).loss.total.detach()) for _ in range(N_STEPS)]


def golden() -> dict[str, list[float]]:
    """Lines of ``mode loss loss ...``; # starts a comment."""
    lines = [line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    return {line[0]: [float(value) for value in line[1:]] for line in lines}


@pytest.mark.parametrize("mode", MODES)
def test_the_first_losses_are_the_golden_ones(mode: str) -> None:
    assert losses(mode) == pytest.approx(golden()[mode], rel=1e-4, abs=1e-3)


def test_the_file_holds_ten_losses_of_every_mode_and_no_two_modes_alike() -> None:
    assert {mode: len(values) for mode, values in golden().items()} == dict.fromkeys(MODES, N_STEPS)
    assert len({tuple(values) for values in golden().values()}) == len(MODES)
    assert golden()["dis"][:6] == golden()["joint"][:6] != golden()["gen"][:6]


if __name__ == "__main__":
    header = "# The losses of the first ten steps, one mode a line; written by: python tests/test_golden.py\n"
    GOLDEN.write_text(header + "".join(f"{mode} {' '.join(f'{value:.6g}' for value in losses(mode))}\n" for mode in MODES))
    print(GOLDEN.read_text(), end="")
