import importlib.metadata

import pytest

import gmmcli


def test_all_is_sorted() -> None:
    assert gmmcli.__all__ == sorted(gmmcli.__all__)


@pytest.mark.parametrize("name", gmmcli.__all__)
def test_every_public_name_is_importable_and_comes_from_its_home(name: str) -> None:
    assert getattr(gmmcli, name).__name__ == name


def test_an_unknown_attribute_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'gmmcli' has no attribute 'train_everything'"):
        gmmcli.train_everything  # noqa: B018


def test_version_is_that_of_the_distribution() -> None:
    assert gmmcli.__version__ == importlib.metadata.version("gmmcli")
