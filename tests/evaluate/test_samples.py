from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gmmcli.core.buffer import decode
from gmmcli.core.chains import fresh_samples
from gmmcli.core.samplers import SGLD, FixedLength
from gmmcli.core.starts import GaussianStarts, UniformStarts
from gmmcli.data.npz import Npz
from gmmcli.errors import RecipeError, RunError
from gmmcli.evaluate.samples import Draw, spread
from gmmcli.recipe import Recipe
from gmmcli.rng import stream
from gmmcli.run import Run
from gmmcli.train.loop import train
from gmmcli.train.setup import Setup

RECIPE = """
name = "shades"
[data]
source = {{ kind = "npz", path = '{path}' }}
batch_size = 16
[model]
backbone = {{ kind = "wide-resnet", depth = 10, width = 1, stem_stride = 2, init = "kaiming" }}
[chains]
buffer_size = 15
dtype = "uint8"
fresh_steps = 6
fresh_noise_std = 0.02
sampler = {{ kind = "sgld", n_steps = 2, step_size = 0.1 }}
[compute]
precision = "fp32"
[[stages]]
epochs = 2
objective = {{ kind = "contrastive-divergence", margin = 2.0 }}
[log]
preview_every = 0
validate_every = 0
checkpoint_every = 3
"""
SHAPE, SLOTS = (1, 8, 8), 5
NOISE = UniformStarts(SHAPE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Train on three shades of noise under ``key=value`` overrides."""
    folder = tmp_path_factory.mktemp("samples")
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(54) % 3, "test": np.arange(12) % 3}
    images = {name: (80 * part[:, None, None] + rng.integers(0, 90, (len(part), 8, 8))).astype(np.uint8) for name, part in labels.items()}
    arrays: dict[str, Any] = {f"{name}_images": part for name, part in images.items()}
    np.savez(folder / "shades.npz", **arrays, **{f"{name}_labels": part for name, part in labels.items()})

    def trained(*overrides: str) -> Run:
        setup = Setup.prepare(Recipe.loads(RECIPE.format(path=folder / "shades.npz"), overrides=overrides))
        run = Run.create(setup.recipe, folder, ["gmmc", "train"])
        train(setup, run, quiet=True)
        return run

    return trained


@pytest.fixture(scope="module")
def run(trained: Callable[..., Run]) -> Run:
    """A finished generative run of six steps."""
    return trained()


@pytest.fixture(scope="module")
def gaussian(trained: Callable[..., Run]) -> Run:
    """One whose chains set out from Gaussians and take steps of one length."""
    return trained("chains.start={ kind = 'class-gaussian', rank = 3 }", "chains.sampler={ kind = 'fixed-length', n_steps = 2 }")


@pytest.fixture(scope="module")
def discriminative(trained: Callable[..., Run]) -> Run:
    return trained("stages.0.objective={ kind = 'cross-entropy' }")


def each(classes: Sequence[int], n: int) -> torch.Tensor:
    return spread(classes, n * len(classes))


@pytest.mark.parametrize(("n", "labels"), [(6, [2, 2, 0, 0, 1, 1]), (5, [2, 2, 0, 0, 1]), (2, [2, 0])])
def test_a_total_is_spread_evenly_and_the_first_classes_get_the_rest(n: int, labels: list[int]) -> None:
    assert spread([2, 0, 1], n).tolist() == labels


def test_everything_left_out_is_as_training_left_it(run: Run) -> None:
    images, labels, protocol = Draw(seed=7)(run, run.model(), each([2, 0], 3))
    assert labels.tolist() == [2, 2, 2, 0, 0, 0]
    expected = fresh_samples(run.model(), run.recipe.chains, NOISE, labels, stream("cpu", 7, "sample", 0), 6)
    assert torch.equal(images, expected)
    noise = {"noise_std": 0.0, "fresh_noise_std": 0.02}
    assert protocol == {"from": "noise", "steps": 6, "start": "uniform", "step_size": 0.1, **noise, "seed": 7}


def test_everything_said_is_as_said(run: Run) -> None:
    images, labels, protocol = Draw(steps=3, step_size=0.25, noise=0.3, seed=7)(run, run.model(), each(range(3), 2))
    chains = replace(run.recipe.chains, fresh_noise_std=0.3, sampler=SGLD(n_steps=2, step_size=0.25))
    expected = fresh_samples(run.model(), chains, NOISE, labels, stream("cpu", 7, "sample", 0), 3)
    assert torch.equal(images, expected)
    noise = {"noise_std": 0.0, "fresh_noise_std": 0.3}
    assert protocol == {"from": "noise", "steps": 3, "start": "uniform", "step_size": 0.25, **noise, "seed": 7}


@pytest.mark.parametrize("step_size", [None, 0.125])
def test_chains_set_out_and_step_as_in_training(gaussian: Run, step_size: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checkpoint kept is enough: the data may be gone."""
    monkeypatch.setattr(Npz, "load", lambda self: pytest.fail("the data were asked for"))
    images, labels, protocol = Draw(steps=3, step_size=step_size, seed=7)(gaussian, gaussian.model(), each(range(3), 2))
    chains = replace(gaussian.recipe.chains, sampler=FixedLength(n_steps=2, step_size=step_size or 0.5))
    starts = gaussian.starts()
    assert isinstance(starts, GaussianStarts) and starts.components.shape == (3, 3, 64)
    assert torch.equal(images, fresh_samples(gaussian.model(), chains, starts, labels, stream("cpu", 7, "sample", 0), 3))
    assert (protocol["start"], protocol["step_size"]) == ("class-gaussian", step_size or 0.5)


def test_starts_are_near_their_class_before_any_step(gaussian: Run) -> None:
    """The shades of the three classes are 80 bytes apart, and their Gaussians keep apart as well."""
    starts = gaussian.starts()
    labels = torch.arange(3).repeat_interleave(50)
    shades = starts(labels, torch.Generator().manual_seed(0)).mean((1, 2, 3)).add(1).mul(255 / 2).view(3, 50).mean(1)
    assert shades.tolist() == pytest.approx([44.5, 124.5, 204.5], abs=6)


def test_without_chains_in_training_the_start_is_said_to_be_what_it_is(trained: Callable[..., Run]) -> None:
    """The recipe may name Gaussians, but no training has fitted them."""
    run = trained("stages.0.objective={ kind = 'center-regression' }", "chains.start.kind=class-gaussian")
    images, labels, protocol = Draw(steps=2, seed=7)(run, run.model(), each(range(3), 1))
    assert protocol["start"] == "uniform"
    assert torch.equal(images, fresh_samples(run.model(), run.recipe.chains, NOISE, labels, stream("cpu", 7, "sample", 0), 2))


def test_annealed_noise_may_be_put_out(run: Run) -> None:
    noisy, quiet = (Draw(steps=4, noise=noise)(run, run.model(), each([0], 2)) for noise in (None, 0.0))
    assert quiet.protocol["fresh_noise_std"] == 0
    assert not torch.equal(noisy.images, quiet.images)


def test_many_chains_go_in_pieces_each_with_its_own_stream(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmmcli.evaluate.samples.CHUNK", 4)
    done: list[int] = []
    images, labels, _ = Draw(steps=2, step_size=0.1, seed=7)(run, run.model(), each(range(3), 3), progress=done.append)
    assert done == [4, 8, 9]
    for i, part in enumerate(torch.split(labels, 4)):
        expected = fresh_samples(run.model(), run.recipe.chains, NOISE, part, stream("cpu", 7, "sample", i), 2)
        assert torch.equal(images[4 * i : 4 * i + 4], expected)


def test_drawing_repeats_by_its_seed_and_leaves_the_global_generator_alone(run: Run) -> None:
    before = torch.get_rng_state()
    for origin in ("noise", "buffer"):
        first, again, other = (Draw(origin, seed=seed)(run, run.model(), each(range(3), 2)).images for seed in (1, 1, 2))  # type: ignore[arg-type]
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_best_weights_are_drawn_from_where_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = run.checkpoints[0], run.checkpoints[-1]
    assert first.step < last.step
    monkeypatch.setattr(Run, "checkpoint", lambda self, best=False: first if best else last)
    draw = Draw(steps=2, step_size=0.1, seed=3)
    best, latest = (draw(run, run.model(best), each([1], 2)) for best in (True, False))
    expected = fresh_samples(run.model(best=True), run.recipe.chains, NOISE, best.labels, stream("cpu", 3, "sample", 0), 2)
    assert torch.equal(best.images, expected)
    assert not torch.equal(best.images, latest.images)


def test_without_chains_in_training_fresh_ones_take_the_recipes_step_size(discriminative: Run) -> None:
    images, _, protocol = Draw(steps=2)(discriminative, discriminative.model(), each(range(3), 1))
    assert images.shape == (3, *SHAPE)
    assert protocol["step_size"] == 0.1


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_all_of_the_buffer_is_every_slot_once(run: Run) -> None:
    images, labels, protocol = Draw("buffer", seed=4)(run, run.model(), each([2, 1], SLOTS))
    stored = decode(run.buffer().images)
    assert stored.dtype == images.dtype == torch.float32
    for part, k in ((images[:SLOTS], 2), (images[SLOTS:], 1)):
        assert len(set(rows(part))) == SLOTS
        assert set(rows(part)) == set(rows(stored[k]))
    assert labels.tolist() == [2] * SLOTS + [1] * SLOTS
    assert protocol == {"from": "buffer", "seed": 4}


@pytest.mark.parametrize("n", [1, 2, 4])
def test_part_of_the_buffer_has_no_slot_twice(n: int, run: Run) -> None:
    stored = decode(run.buffer().images)
    for seed in range(10):
        images = Draw("buffer", seed=seed)(run, run.model(), each(range(3), n)).images
        for k, part in enumerate(images.split(n)):
            assert len(set(rows(part)) & set(rows(stored[k]))) == n


def test_a_class_is_drawn_the_same_in_any_company(run: Run) -> None:
    alone, together = (Draw("buffer", seed=4)(run, run.model(), each(classes, 3)).images for classes in ([0], [2, 0]))
    assert torch.equal(alone, together[3:])


def test_every_slot_has_its_turn(run: Run) -> None:
    drawn = {row for seed in range(40) for row in rows(Draw("buffer", seed=seed)(run, run.model(), each([0], 1)).images)}
    assert drawn == set(rows(decode(run.buffer().images[0])))


def test_the_buffer_holds_no_more_than_it_does(run: Run) -> None:
    with pytest.raises(RecipeError, match=f"the buffer holds {SLOTS} images of a class, not 6") as caught:
        Draw("buffer")(run, run.model(), each(range(3), SLOTS + 1))
    assert "--from noise" in caught.value.hint


@pytest.mark.parametrize("option", [{"steps": 5}, {"step_size": 0.1}, {"noise": 0.0}], ids=str)
def test_options_of_fresh_chains_do_not_go_with_the_buffer(option: dict[str, Any], run: Run) -> None:
    with pytest.raises(RecipeError, match="--steps, --step-size and --noise are options of fresh chains") as caught:
        Draw("buffer", **option)(run, run.model(), each(range(3), 1))
    assert "--from buffer" in caught.value.hint


def test_a_run_without_chains_has_no_buffer(discriminative: Run) -> None:
    with pytest.raises(RunError, match="trained without chains"):
        Draw("buffer")(discriminative, discriminative.model(), each(range(3), 1))
