from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from gmmcli.data.dataset import ALL, Split
from gmmcli.data.digits import Digits
from gmmcli.errors import MissingPartError
from gmmcli.metrics.features import efficientnet, inception
from gmmcli.metrics.features.spaces import best_space, efficientnet_space, inception_space, named_space, pixel_space, quick_space, run_space
from gmmcli.recipe import Recipe
from gmmcli.types import to_model
from ranks import on_ranks


def test_the_pixel_space_is_of_pixels_in_the_model_range() -> None:
    images = Digits().load().test.images[:5]
    space = pixel_space()
    embedded = space.embed(images)
    torch.testing.assert_close(embedded.float(), to_model(images).flatten(1), atol=1e-6, rtol=0)
    assert torch.equal(embedded, torch.from_numpy(images.numpy().reshape(5, -1) / 127.5 - 1))
    assert (space.name, space.class_probs) == ("pixels", None)


def test_a_runs_space_is_of_its_models_features(tiny_recipe: Recipe) -> None:
    model, images = tiny_recipe.model.build(10, 1, seed=3).train(), Digits().load().test.images[:5]
    space = run_space("2026-a", model)
    embedded = space.embed(images)
    with torch.no_grad():
        torch.testing.assert_close(embedded, model.eval().features(to_model(images)))
    assert not embedded.requires_grad
    assert (space.name, space.class_probs) == ("run:2026-a", None)
    assert "2026-a" in space.about


def test_inceptions_space_is_of_the_network_and_says_its_hash() -> None:
    network = SimpleNamespace(sha256="abc", features=lambda images, within: images[within] + 1, class_probs=lambda features: features * 2)
    space = inception_space(network)  # type: ignore[arg-type]  # all of it that is asked
    assert space.name == "inception"
    assert "abc" in space.about
    assert space.embed(torch.zeros(1)).item() == 1
    assert space.class_probs is not None
    assert space.class_probs(torch.ones(1)).item() == 2


def test_efficientnets_space_says_its_size_and_hash_and_has_no_inception_score() -> None:
    network = SimpleNamespace(sha256="abc", edge=64, features=lambda images, within: images[within] + 1)
    space = efficientnet_space(network)  # type: ignore[arg-type]  # all of it that is asked
    assert (space.name, space.class_probs) == ("efficientnet-lite0", None)
    assert "64 x 64" in space.about
    assert "abc" in space.about
    assert space.embed(torch.zeros(1)).item() == 1


def _embedded() -> tuple[list[float], list[float]]:
    seen: list[float] = []

    def features(images: Tensor | Split, within: slice = ALL) -> Tensor:
        assert isinstance(images, Tensor)
        seen.extend(images[within].tolist())
        return images[within] + 1

    space = efficientnet_space(SimpleNamespace(sha256="abc", edge=64, features=features))  # type: ignore[arg-type]  # as above
    return space.embed(torch.arange(5.0)).tolist(), seen


def test_images_are_divided_among_processes() -> None:
    assert on_ranks(2, _embedded) == [([1, 2, 3, 4, 5], [0, 1]), ([1, 2, 3, 4, 5], [2, 3, 4])]


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Inception's weights would lie on a machine without weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(efficientnet, "default_weights", lambda: None)
    return tmp_path / "hub" / "checkpoints" / inception.FILE


def test_the_best_space_is_inceptions_then_efficientnets_then_pixels(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_space() == "pixels"
    assert [space and space.name for space in map(named_space, ("best", "pixels", "2026-a"))] == ["pixels", "pixels", None]
    monkeypatch.setattr(efficientnet, "default_weights", lambda: absent.with_name("x"))
    assert best_space() == "efficientnet-lite0"
    assert best_space(weights=absent) == "inception"  # who names a file means it
    absent.parent.mkdir(parents=True)
    absent.write_bytes(b"whatever")
    assert best_space() == "inception"


@pytest.mark.parametrize("name", ["inception", "efficientnet-lite0"])
def test_a_space_asked_for_by_name_is_missed_where_its_weights_are_absent(name: str, absent: Path) -> None:
    with pytest.raises(MissingPartError) as caught:
        named_space(name)
    assert caught.value.exit_code == 4


@pytest.mark.skipif(efficientnet.default_weights() is None, reason="needs gmmcli[features]")
def test_the_quick_space_is_efficientnets_where_it_is_installed() -> None:
    space = quick_space("cpu")
    assert space.name == "efficientnet-lite0"
    with patch("gmmcli.metrics.features.spaces.divided", side_effect=AssertionError("one process alone asks it")):
        assert space.embed(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).shape == (1, 1280)


def test_the_quick_space_is_of_pixels_elsewhere(absent: Path) -> None:
    absent.parent.mkdir(parents=True)
    absent.touch()  # Inception's weights, which would be too slow
    assert quick_space().name == "pixels"
