from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from extension import install
from gmmcli.data.digits import Digits
from gmmcli.data.downloaded import CIFAR10, CIFAR100, MNIST, SVHN
from gmmcli.data.folder import Folder
from gmmcli.data.npz import Npz
from gmmcli.data.sources import Source, located, parse_source, source_at, usage
from gmmcli.errors import RecipeError
from gmmcli.registry import installed


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


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (Npz(path="images/x.npz"), Npz(path="home/images/x.npz")),
        (Npz(path="../there/x.npz", validation=0.3), Npz(path="there/x.npz", validation=0.3)),
        (Folder(path="images", size=8), Folder(path="home/images", size=8)),
        (SVHN(root="images"), SVHN(root="home/images")),
        (Npz(path="gone.npz"), Npz(path="gone.npz")),
        (Digits(), Digits()),
    ],
)
def test_a_relative_path_starts_elsewhere_where_something_is_there(
    source: Source, found: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("home/images/x.npz", "there/x.npz", "images/x.npz"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    assert located(source, Path("home")) == found
    assert located(source, tmp_path / "home") == found


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    source = Npz(path=str(tmp_path))
    assert located(source, Path("home")) == source


SCANS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Scans:
    path: str
    kind: str = "scans"
    n_classes = None

    def load(self):
        raise NotImplementedError

@dataclass(frozen=True)
class Empty:
    kind: str = "empty"

class Plain:
    pass
"""


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sources of another package: one at a path, and two that are none."""
    package = tmp_path / "package"
    package.mkdir()
    install(package, monkeypatch, {"scans": SCANS}, {"sources": {name: f"scans:{name.title()}" for name in ("scans", "empty", "plain")}})
    yield
    monkeypatch.undo()
    installed.cache_clear()


@pytest.mark.usefixtures("scans")
def test_an_added_source_with_a_path_is_named_and_found_like_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parse_source("scans:here/x")
    assert (source.kind, vars(source)["path"], usage("scans")) == ("scans", "here/x", "scans:PATH")
    (tmp_path / "home" / "here").mkdir(parents=True)
    (tmp_path / "home" / "here" / "x").touch()
    monkeypatch.chdir(tmp_path)
    assert located(source, Path("home")) == replace(source, path="home/here/x")  # type: ignore[type-var]  # a dataclass
    for text, hint in {"scans": "folder:PATH, npz:PATH, scans:PATH, empty, plain", "sacns:x": "did you mean scans?"}.items():
        with pytest.raises(RecipeError, match=r"^no dataset ") as error:
            parse_source(text)
        assert error.value.hint.endswith(hint)


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize(("kind", "lack"), [("empty", "it has no `n_classes`, `load`"), ("plain", "it is not a frozen dataclass")])
def test_an_added_source_that_lacks_something_is_refused(kind: str, lack: str) -> None:
    with pytest.raises(RecipeError, match=f"^package others adds '{kind}' to gmmcli's sources, and {lack}"):
        parse_source(kind)


def test_images_are_found_at_a_path_and_the_hint_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    for name in ("a.zip", "a.npz", "a.txt"):
        (tmp_path / name).touch()
    found = {name: source_at(str(tmp_path / name)) for name in ("my photos", "a.zip", "a.npz", "a.txt", "gone", "x" * 300, "a\0")}
    assert {name: source and source.kind for name, source in found.items()} == {
        **{"my photos": "folder", "a.zip": "folder", "a.npz": "npz"},
        **dict.fromkeys(("a.txt", "gone", "x" * 300, "a\0")),
    }
    with pytest.raises(RecipeError) as error:
        parse_source(str(tmp_path / "my photos"))
    assert error.value.hint == f"did you mean folder:{tmp_path / 'my photos'}?"
