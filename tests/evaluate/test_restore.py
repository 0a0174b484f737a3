"""Restored images keep to what was known; morphs lead from one class to another."""

from dataclasses import replace

import pytest
import torch

from gmmcli.core.samplers import changed
from gmmcli.core.starts import ClassGaussian
from gmmcli.evaluate.restore import denoise, inpaint, morph
from gmmcli.evaluate.subject import Subject
from gmmcli.run import Run
from gmmcli.types import Images, to_model

HALF = torch.arange(8) < 4
KNOWN = HALF.expand(1, 1, 8, 8)


@pytest.fixture
def given(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Images:
    """A test image; the run's chains start from the Gaussians of its training images, and are short."""
    images, labels = subject.training.batch()
    starts = ClassGaussian(rank=20).fit(images, labels, 10, seed=1)
    monkeypatch.setattr(Run, "starts", lambda run, device="cpu": starts)
    recipe = subject.run.recipe
    vars(subject.run).update(recipe=replace(recipe, chains=replace(recipe.chains, fresh_steps=6)))
    return to_model(subject.images.batch(slice(1))[0])


@pytest.mark.parametrize("label", [None, 3])
def test_known_pixels_are_as_they_were_and_answers_differ(subject: Subject, given: Images, label: int | None) -> None:
    found = inpaint(subject.run, subject.model, given, KNOWN, 3, label)
    assert found.shape == (3, 1, 8, 8)
    assert torch.equal(found[..., HALF], given[..., HALF].expand(3, -1, -1, -1))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found, inpaint(subject.run, subject.model, given, KNOWN, 3, label))
    assert not torch.equal(found, inpaint(subject.run, subject.model, given, KNOWN, 3, label, seed=2))


def test_the_rest_fits_what_is_known_better_than_a_start_that_does_not_look(subject: Subject, given: Images) -> None:
    label = int(subject.images.labels[0])
    found = inpaint(subject.run, subject.model, given, KNOWN, 16, label)
    blind = subject.run.starts()(torch.full((16,), label), torch.Generator().manual_seed(0))
    assert (found - given).square().mean() < 0.7 * (torch.where(KNOWN, given, blind) - given).square().mean()


@pytest.mark.parametrize("known_class", [True, False])
def test_noise_is_reduced(subject: Subject, given: Images, known_class: bool) -> None:
    noisy = given + 0.6 * torch.randn(given.shape, generator=torch.Generator().manual_seed(0))
    label = int(subject.images.labels[0]) if known_class else None
    found = denoise(subject.run, subject.model, noisy, subject.gamma2, 0.6, label)
    assert (found - given).square().mean() < 0.6 * (noisy - given).square().mean()


def test_without_gaussians_denoising_sets_out_from_the_noisy_image(subject: Subject) -> None:
    image = to_model(subject.images.batch(slice(1))[0])
    recipe = subject.run.recipe
    still = replace(recipe.chains, sampler=changed(recipe.chains.sampler, step_size=1e-9))
    vars(subject.run).update(recipe=replace(recipe, chains=still))
    torch.testing.assert_close(denoise(subject.run, subject.model, image, subject.gamma2, 0.5), image, atol=1e-4, rtol=0)


def test_a_morph_begins_at_one_class_and_gains_energy_there_as_it_leaves(subject: Subject, given: Images) -> None:
    seen: list[int] = []
    frames = morph(subject.run, subject.model, torch.full((4,), 2), 7, frames=6, progress=seen.append)
    assert (len(frames), seen) == (6, [1, 2, 3, 4, 5, 6])
    with torch.no_grad():
        lead = [(subject.model(images)[:, 7] - subject.model(images)[:, 2]).mean() for images in (frames[0], frames[-1])]
    assert lead[1] > lead[0]
