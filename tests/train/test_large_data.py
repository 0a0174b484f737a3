"""Training on images that stay in a file is training on the same images in memory, bit for bit, also after a resume."""

from pathlib import Path

import pytest
from trainings import Begin, contents, cut_at, trained

from gmmcli.data import mapped

AUGMENTED = ("data.crop_padding=1", "data.flip=true", "log.checkpoint_every=2", "log.validate_every=3", "stages.0.epochs=2")


def test_a_training_on_mapped_images_is_that_in_memory(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, run = begin(*AUGMENTED)
    assert not setup.loader.split.mapped
    expected = contents(trained(setup, run).checkpoint())
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    setup, run = begin(*AUGMENTED)
    assert setup.loader.split.mapped and setup.validation.mapped
    assert contents(trained(setup, run).checkpoint()) == expected
    setup, _ = begin(*AUGMENTED)
    assert contents(trained(setup, cut_at(run, 6, tmp_path), resume=True).checkpoint()) == expected


def test_starts_are_fitted_to_the_images_that_fit_in_memory(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 50 * 64)
    setup, _ = begin("chains.start.kind=gaussian")
    fitted = []
    monkeypatch.setattr(type(setup.recipe.chains.start), "fit", lambda self, images, labels, *_: fitted.append((images, labels)))
    assert setup.starts is None
    ((images, labels),) = fitted
    assert len(images) == len(labels) <= 50 < len(setup.loader.split)
    assert labels.bincount().tolist() == [min(5, n) for n in setup.dataset.train.labels.bincount().tolist()]
