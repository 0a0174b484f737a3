import os
import re
from pathlib import Path

import numpy as np
import pytest

from gmmcli.errors import RunError, StorageError
from gmmcli.storage import (
    LONGEST,
    append_json,
    check_writable,
    file_stem,
    open_lock,
    placed,
    read_json,
    read_json_lines,
    replacing,
    write_arrays,
    write_text,
)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    write_text(path, "old")
    write_text(path, "nü")
    assert path.read_text(encoding="utf-8") == "nü"
    assert list(path.parent.iterdir()) == [path]


def test_arrays_come_back_from_under_any_name(tmp_path: Path) -> None:
    write_arrays(tmp_path / "x.arrays", a=np.arange(3), **{"in log_px": np.ones((2, 2), np.float32)})
    with np.load(tmp_path / "x.arrays", allow_pickle=False) as archive:
        assert archive["a"].tolist() == [0, 1, 2]
        assert (archive["in log_px"].dtype, archive["in log_px"].shape) == (np.float32, (2, 2))


def test_while_it_is_written_the_old_content_stands(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_text(path, "old")
    with replacing(path) as hidden:
        hidden.write_text("new, half")
        assert (hidden.parent, hidden.suffix, path.read_text()) == (path.parent, ".png", "old")
    assert path.read_text() == "new, half"


def test_hidden_names_are_never_the_same_and_a_planted_link_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, precious = tmp_path / "x.json", tmp_path / "precious"
    precious.write_text("mine")
    with replacing(path) as one, replacing(path) as other:
        assert one != other
    monkeypatch.setattr("gmmcli.storage.token_hex", lambda n: "0" * 16)
    (tmp_path / f".{os.getpid()}-{'0' * 16}-x.json").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_text(path, "new")
    assert precious.read_text() == "mine"


def test_a_write_that_fails_half_way_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_arrays(path, a=np.arange(3))
    old = path.read_bytes()

    class Unwritable:
        def __array__(self, *args: object) -> np.ndarray:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_arrays(path, a=np.arange(3), b=Unwritable())  # type: ignore[arg-type]
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_does_not_take_it_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old")

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_words_become_a_name_that_every_disk_takes_and_long_ones_stay_apart() -> None:
    assert file_stem("eval accuracy C:\\faces\n: test") == "eval-accuracy-C-faces-test"
    one, other = (file_stem("tsne beside " + "ü" * 300 + end) for end in "ab")
    assert one != other
    assert one.startswith("tsne-beside-")
    assert len(one.encode()) <= LONGEST


def test_lines_come_back_in_order_without_one_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    append_json(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"b": 2, "lo')
    assert read_json_lines(path) == [{"a": 1}]
    append_json(path, {"c": 3})
    assert path.read_text() == '{"a": 1}\n{"b": 2, "lo\n{"c": 3}\n'
    assert read_json_lines(path) == [{"a": 1}, {"c": 3}]


def test_a_place_is_tried_and_nothing_is_left_or_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for good in (tmp_path, tmp_path / "x.png", tmp_path / "new" / "er" / "x.png", tmp_path / "file"):
        check_writable(good)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(StorageError, match="file is a file, not a folder"):
        check_writable(tmp_path / "file" / "new" / "x.png")

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gmmcli.storage.TemporaryFile", refuse)
    with pytest.raises(StorageError, match=r"x\.png: .* takes no files: Permission denied"):
        check_writable(tmp_path / "x.png")


def test_a_file_goes_where_asked_or_into_the_folder_asked(tmp_path: Path) -> None:
    usual = Path("run/figures/a.png")
    assert placed(None, usual) == usual
    assert placed(tmp_path, usual) == tmp_path / "a.png"
    assert placed(tmp_path / "b.png", usual) == tmp_path / "b.png"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[" * 100_000, b"[1]", b"null"])
def test_a_file_of_anything_but_one_object_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "provenance.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=rf"^{re.escape(str(path))} is damaged: "):
        read_json(path)


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\xfe\x00}\n{"b": }\n3\n\n{"c": "\xc3\xa4"}\n')
    assert read_json_lines(path) == [{"a": 1}, {"c": "ä"}]


def test_a_named_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.json"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match="not a regular file"):
        read_json(pipe)
    assert read_json_lines(pipe) == []
    with pytest.raises(StorageError, match="no regular file"):
        open_lock(pipe)
