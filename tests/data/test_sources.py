import pytest

from gmmcli.data.digits import Digits
from gmmcli.data.downloaded import CIFAR10, CIFAR100, MNIST, SVHN
from gmmcli.data.folder import Folder
from gmmcli.data.npz import Npz
from gmmcli.data.sources import Source, parse_source
from gmmcli.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("digits", Digits()),
        ("mnist", MNIST()),
        ("svhn", SVHN()),
        ("cifar10", CIFAR10()),
        ("cifar100", CIFAR100()),
        ("npz:x.npz", Npz(path="x.npz")),
        ("npz:odd:name.npz", Npz(path="odd:name.npz")),
        ("folder:my/images", Folder(path="my/images")),
        ("folder:my images.zip", Folder(path="my images.zip")),
    ],
)
def test_parse_source(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("mnits", "did you mean mnist?"),
        ("cifar", "did you mean cifar10?"),
        ("fodler:x", "did you mean folder?"),
        ("npz", "give one of digits, mnist, cifar10, cifar100, svhn, folder:PATH, npz:PATH"),
        ("npz:", "give one of digits"),
        ("svhn:x", "give one of digits"),
        ("zzz", "give one of digits"),
        ("", "give one of digits"),
    ],
)
def test_what_is_no_source_gets_a_hint(text: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=r"^no dataset ") as error:
        parse_source(text)
    assert repr(text) in error.value.message
    assert error.value.hint.startswith(hint)
