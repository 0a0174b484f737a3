from pathlib import Path

import pytest

from gmmcli.data.set_aside import Move, move, moves
from gmmcli.errors import StorageError


def written(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_plan_moves_nothing_and_a_move_keeps_the_path_below_the_folder(tmp_path: Path) -> None:
    file = written(tmp_path / "pets" / "cat" / "1.png")
    (planned,) = moves(tmp_path / "pets", [file])
    assert planned == Move(file, tmp_path / "pets.set-aside" / "cat" / "1.png")
    assert file.exists() and not (tmp_path / "pets.set-aside").exists()
    move(planned)
    assert planned.to and planned.to.read_text() == "mine" and not file.exists()


def test_nothing_is_replaced(tmp_path: Path) -> None:
    aside = tmp_path / "pets.set-aside" / "cat"
    written(aside / "1.png", "first"), (aside / "1-2.png").symlink_to("gone")
    files = [written(tmp_path / "pets" / "cat" / name) for name in ("1.png", "1-3.png")]
    for planned in moves(tmp_path / "pets", files):
        move(planned)
    assert sorted(path.name for path in aside.iterdir()) == ["1-2.png", "1-3-2.png", "1-3.png", "1.png"]
    assert (aside / "1.png").read_text() == "first" and (aside / "1-2.png").is_symlink()


def test_the_folder_may_be_named_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "pets" / "cat" / "1.png")
    monkeypatch.chdir(tmp_path / "pets")
    (planned,) = moves(Path(), [Path("cat/1.png")])
    assert planned.to == tmp_path / "pets.set-aside" / "cat" / "1.png"
    monkeypatch.chdir(file.parent)
    (planned,) = moves(Path(".."), [Path("../cat/1.png")])
    assert planned.to == tmp_path / "pets.set-aside" / "cat" / "1.png"
    with pytest.raises(StorageError, match="no place beside /"):
        moves(Path("/"), [])


def test_what_lies_elsewhere_is_left(tmp_path: Path) -> None:
    written(tmp_path / "shared" / "1.png")
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "cat").symlink_to(tmp_path / "shared")
    (planned,) = moves(tmp_path / "pets", [tmp_path / "pets" / "cat" / "1.png"])
    assert planned.to is None
    move(planned)
    assert (tmp_path / "shared" / "1.png").exists()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pets.set-aside").symlink_to(tmp_path)
    with pytest.raises(StorageError, match=r"pets\.set-aside is a link, or no folder$"):
        moves(tmp_path / "pets", [])
