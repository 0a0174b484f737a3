"""What a training needs at least: worked out by hand, held against what is measured, and refused where it is too much."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch
from trainings import DIS, Small

from gmmcli.core.compute import total_memory
from gmmcli.errors import RecipeError
from gmmcli.train import needs as module
from gmmcli.train.needs import Needs
from gmmcli.train.plan import plan
from gmmcli.train.setup import Setup

CPU = torch.device("cpu")
Usage = namedtuple("Usage", "total used free")


def needs(small: Small, *overrides: str) -> Needs:
    return Needs.of(Setup.prepare(small(*overrides)))


def conv(inputs: int, outputs: int, size: int, pixels: int) -> int:
    return 2 * inputs * outputs * size * size * pixels


# WRN-10-1 on 8 x 8 with a stem that halves: 4 x 4, 2 x 2 and 1 x 1 pixels in the groups, strided in their first convolution but one
FORWARD = sum(
    (
        conv(1, 16, 3, 16),
        2 * conv(16, 16, 3, 16),
        conv(16, 32, 3, 16) + conv(32, 32, 3, 4) + conv(16, 32, 1, 4),
        conv(32, 64, 3, 4) + conv(64, 64, 3, 1) + conv(32, 64, 1, 1),
    )
)


@pytest.fixture
def one_operation_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "operations_a_second", lambda device, precision: 1.0)


@pytest.mark.usefixtures("one_operation_a_second")
@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        ((DIS,), 3),
        ((), 3 + 3 + 2 * 2),  # real and sampled images, and two updates of the chains
        (("chains.sampler.n_steps=7",), 3 + 3 + 2 * 7),
        (("optim.sam_rho=0.1",), 2 * (3 + 3) + 2 * 2),
    ],
)
def test_time_is_that_of_the_operations_worked_out_by_hand(small: Small, overrides: tuple[str, ...], passes: int) -> None:
    found = needs(small, *overrides)
    assert found.step_seconds == (16 * passes * FORWARD,)
    assert found.seconds == 5 * (2 if overrides == (DIS,) else 1) * found.step_seconds[0]


def test_they_are_no_more_than_what_a_training_takes(small: Small) -> None:
    recipe = small("log.checkpoint_every=1", "log.keep=3")
    least, planned = Needs.of(Setup.prepare(recipe)), plan(recipe, Path())
    state = planned.model_bytes + planned.optimizer_bytes + planned.buffer_bytes
    assert state < least.memory < planned.peak_bytes
    assert 0.25 * planned.checkpoints * planned.checkpoint_bytes < least.disk < planned.checkpoints * planned.checkpoint_bytes


def test_memory_grows_with_the_batch_as_activations_do(small: Small) -> None:
    one, two, three = (needs(small, f"data.batch_size={n}").memory for n in (10, 20, 30))
    assert two - one == three - two > 10 * 4 * 16 * 64  # more than the result of the first convolution
    assert needs(small, "data.batch_size=20", DIS).memory < two


def test_a_backbone_that_cannot_be_built_on_paper_is_not_counted(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("gmmcli.core.cost.bytes_of_an_image", refuse)
    assert needs(small).seconds == 0


def test_nothing_of_the_size_is_made_and_no_random_number_drawn(small: Small) -> None:
    setup = Setup.prepare(small("model.backbone.width=1000", "chains.buffer_size=1000000000000"))
    before = torch.get_rng_state()
    found = Needs.of(setup)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.memory > 2.56e14  # 4 bytes of each of 10^12 images of 8 x 8, and 10^11 weights


def test_too_much_memory_is_refused_with_both_figures(small: Small, tmp_path: Path) -> None:
    setup = Setup.prepare(small("model.backbone.width=1000"))
    with pytest.raises(RecipeError, match=r"small needs at least [\d,.]+ GiB of memory, and there are [\d.]+ GiB") as caught:
        Needs.of(setup).check(setup, tmp_path / "runs")
    assert "--force" in caught.value.hint
    with pytest.raises(RecipeError, match="of memory"):
        plan(setup.recipe, tmp_path)


def test_too_little_disk_is_refused(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup.prepare(small())
    Needs.of(setup).check(setup, tmp_path / "not" / "yet")
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(10**9, 10**9, 1000))
    with pytest.raises(RecipeError, match=f"for checkpoints, and {tmp_path} has 0.0 GiB free"):
        Needs.of(setup).check(setup, tmp_path / "not" / "yet")


def test_more_than_a_year_is_refused(small: Small, tmp_path: Path) -> None:
    setup = Setup.prepare(small("stages.0.epochs=1000000000000"))
    with pytest.raises(RecipeError, match=r"small takes at least [\d,]+ days on this cpu"):
        Needs.of(setup).check(setup, tmp_path)
    with pytest.raises(RecipeError, match="less than or equal to 1000"):
        small("model.backbone.depth=1000000000000")


def test_memory_is_the_machines_or_what_the_control_group_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(text: str) -> int:
        monkeypatch.setattr(Path, "read_text", lambda path: text)
        return total_memory(CPU)

    assert limit("1000\n") == 1000
    assert limit("max\n") == limit(str(2**60)) > 10**8
