import errno
import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from gmmcli import checkpoint as checkpoint_module
from gmmcli.checkpoint import Checkpoint, Draft, Part
from gmmcli.errors import CheckpointError


def parts(value: float = 1.0) -> dict[str, Part]:
    return {
        "model": Part({"weight": torch.full((3, 4), value), "steps": torch.arange(5)}, {"name": "toy", "note": "ü"}),
        "buffer": Part({"images": torch.full((2, 8), 7, dtype=torch.uint8)}, {}),
    }


def save(folder: Path, step: int = 5, value: float = 1.0) -> Checkpoint:
    return Checkpoint.save(folder, step, parts(value), {"step": step, "best": 0.5})


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    save(tmp_path)
    (checkpoint,) = Checkpoint.all(tmp_path)
    assert checkpoint.step == 5
    assert checkpoint.progress == {"step": 5, "best": 0.5}
    for name, part in parts().items():
        assert checkpoint.has(name)
        assert checkpoint.metadata(name) == dict(part.metadata)
        loaded = checkpoint.tensors(name)
        assert loaded.keys() == part.tensors.keys()
        for key, tensor in part.tensors.items():
            assert loaded[key].dtype == tensor.dtype
            assert torch.equal(loaded[key], tensor)


def test_tensors_of_any_layout_and_with_gradients_are_saved_by_value(tmp_path: Path) -> None:
    weight = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last).requires_grad_()
    checkpoint = Checkpoint.save(tmp_path, 1, {"model": Part({"w": weight, "t": weight.transpose(1, 3)}, {})}, {})
    assert torch.equal(checkpoint.tensors("model")["w"], weight)
    assert torch.equal(checkpoint.tensors("model")["t"], weight.transpose(1, 3))


def test_all_is_in_order_of_steps(tmp_path: Path) -> None:
    for step in (30, 4, 100):
        save(tmp_path, step)
    assert [checkpoint.step for checkpoint in Checkpoint.all(tmp_path)] == [4, 30, 100]


def test_a_folder_that_is_not_there_has_no_checkpoints(tmp_path: Path) -> None:
    assert Checkpoint.all(tmp_path / "none") == []


def test_tensors_are_mapped_from_the_file_and_writing_to_them_leaves_it_alone(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    weight = checkpoint.tensors("model")["weight"]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(checkpoint.path / "model.safetensors") in maps.read_text()
    weight.fill_(9)
    assert checkpoint.tensors("model")["weight"].eq(1).all()


def test_a_checkpoint_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2).path / "manifest.json").unlink()
    assert [checkpoint.step for checkpoint in Checkpoint.all(tmp_path)] == [1]


@pytest.mark.parametrize("file", ["model.safetensors", "buffer.safetensors", "progress.json"])
def test_a_file_that_is_gone_is_an_error_on_reading_and_no_older_checkpoint_takes_its_place(file: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2).path / file).unlink()
    newest = Checkpoint.all(tmp_path)[-1]
    assert newest.step == 2
    with pytest.raises(CheckpointError, match=f"has no {file}") as error:
        newest.progress if file == "progress.json" else newest.tensors(file.removesuffix(".safetensors"))
    assert "--from-intact resumes from an older" in error.value.hint


@pytest.mark.parametrize("file", ["manifest.json", "model.safetensors", "progress.json"])
def test_a_file_cut_short_is_an_error_on_reading_and_no_older_checkpoint_takes_its_place(file: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2).path / file
    path.write_bytes(path.read_bytes()[:-1])
    newest = Checkpoint.all(tmp_path)[-1]
    assert newest.step == 2
    with pytest.raises(CheckpointError, match="cannot be read" if file == "manifest.json" else "is damaged") as error:
        newest.progress if file == "progress.json" else newest.tensors("model")
    assert "--from-intact resumes from an older" in error.value.hint


def test_what_a_crash_left_half_written_does_not_count_and_does_not_disturb(tmp_path: Path) -> None:
    left = tmp_path / ".step-00000005"
    left.mkdir()
    (left / "stale.safetensors").write_bytes(b"half of it")
    assert Checkpoint.all(tmp_path) == []
    assert {file.name for file in save(tmp_path).path.iterdir()} == {
        "model.safetensors",
        "buffer.safetensors",
        "progress.json",
        "manifest.json",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("file", ["model.safetensors", "progress.json"])
@pytest.mark.parametrize("at", [0, -1])
def test_a_flipped_bit_is_found_on_reading_and_the_file_named(file: str, at: int, tmp_path: Path) -> None:
    path = save(tmp_path).path / file
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    (checkpoint,) = Checkpoint.all(tmp_path)
    with pytest.raises(CheckpointError, match="is damaged: its sha256 differs") as error:
        checkpoint.progress if file == "progress.json" else checkpoint.tensors("model")
    assert str(path) in error.value.message
    assert error.value.exit_code == 6
    assert "--from-intact" in error.value.hint
    assert checkpoint.tensors("buffer")["images"].eq(7).all()  # the other files are sound


def test_a_part_that_was_never_saved_is_named(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    assert not checkpoint.has("optimizer")
    with pytest.raises(CheckpointError, match=r"has no optimizer\.safetensors$"):
        checkpoint.tensors("optimizer")


def test_a_manifest_that_cannot_be_read_is_an_error_where_it_is_asked(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    (checkpoint.path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        Checkpoint(checkpoint.path).has("model")


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, value=1.0)
    save(tmp_path, value=2.0)
    (checkpoint,) = Checkpoint.all(tmp_path)
    assert checkpoint.tensors("model")["weight"].eq(2).all()


def test_a_checkpoint_can_be_written_from_its_own_mapped_tensors(tmp_path: Path) -> None:
    mapped = save(tmp_path).tensors("model")
    Checkpoint.save(tmp_path, 5, {"model": Part(mapped, {})}, {})
    (checkpoint,) = Checkpoint.all(tmp_path)
    assert checkpoint.tensors("model")["weight"].eq(1).all()


@pytest.fixture
def crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a kill between the two renames of a replacement leaves of the checkpoints 4 and 5."""
    folder, left = tmp_path / "folder", tmp_path / "left"
    save(folder, 4)
    save(folder, 5, value=1.0)
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        if path.name == ".step-00000005":
            shutil.copytree(folder, left)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        save(folder, 5, value=2.0)
    assert sorted(path.name for path in left.iterdir()) == [".old-step-00000005", ".step-00000005", "step-00000004"]
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000005"]
    yield left
    assert not list(left.glob(".*"))


def values(folder: Path) -> list[tuple[int, float]]:
    """Step and contents of all checkpoints."""
    return [(c.step, float(c.tensors("model")["weight"][0, 0])) for c in Checkpoint.all(folder)]


def test_a_crash_while_a_step_is_replaced_leaves_the_old_one(crashed: Path) -> None:
    assert values(crashed) == [(4, 1.0), (5, 1.0)]
    save(crashed, 5, value=3.0)
    assert values(crashed) == [(4, 1.0), (5, 3.0)]


def test_it_stays_while_it_is_the_only_one_of_its_step(crashed: Path) -> None:
    save(crashed, 6)
    assert values(crashed) == [(4, 1.0), (5, 1.0), (6, 1.0)]
    Checkpoint.all(crashed)[1].remove()
    assert values(crashed) == [(4, 1.0), (6, 1.0)]


def test_what_a_crash_left_of_a_replaced_one_goes_with_the_next_save(crashed: Path) -> None:
    shutil.copytree(crashed / ".old-step-00000005", crashed / "step-00000005")
    save(crashed, 6)
    assert values(crashed) == [(4, 1.0), (5, 1.0), (6, 1.0)]


@pytest.mark.parametrize("step", [5, 6])
def test_a_disk_that_fails_leaves_what_was_there_and_the_error_says_where(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)

    def full(path: Path, *_: object) -> str:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_tensors", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        save(tmp_path, step, value=2.0)
    assert error.value.filename == str(tmp_path / f".step-{step:08d}")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    assert values(tmp_path) == [(5, 1.0)]


def test_several_drafts_write_the_parts_of_one_checkpoint(tmp_path: Path) -> None:
    first, second = Draft(tmp_path, 7), Draft(tmp_path, 7)
    with first, second:
        first.begin()
        first.write("model", parts()["model"])
        second.write("buffer-r01", parts()["buffer"])
        assert Checkpoint.all(tmp_path) == []
        first.files |= second.files
        saved = first.commit({"step": 7})
    assert Checkpoint.all(tmp_path) == [saved]
    assert saved.tensors("buffer-r01")["images"].eq(7).all()
    assert saved.tensors("model")["weight"].eq(1).all()
    manifest = json.loads((saved.path / "manifest.json").read_text())
    assert manifest.keys() == {"model.safetensors", "buffer-r01.safetensors", "progress.json"}
    assert all((saved.path / name).stat().st_size == entry["bytes"] for name, entry in manifest.items())


def test_remove_leaves_the_others(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_manifest_lists_size_and_digest_of_every_other_file(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    manifest = json.loads((checkpoint.path / "manifest.json").read_text())
    assert manifest.keys() == {"model.safetensors", "buffer.safetensors", "progress.json"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest.values())


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    names: list[str] = []
    whole = checkpoint_module._digest

    def digest(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(checkpoint_module, "_digest", digest)
    return names


def test_a_file_is_hashed_once_however_often_and_by_whomever_it_is_read(tmp_path: Path, hashed: list[str]) -> None:
    save(tmp_path)
    del hashed[:]
    for _ in range(2):
        (checkpoint,) = Checkpoint.all(tmp_path)
        checkpoint.tensors("model")
        checkpoint.metadata("model")
        assert checkpoint.has("buffer")
    assert hashed == ["model.safetensors"]


def test_a_file_that_changed_since_it_was_read_is_hashed_again(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    checkpoint.tensors("model")
    path = checkpoint.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.tensors("model")


@pytest.mark.parametrize(
    "manifest",
    ["[]", "7", "{", '{"model.safetensors": 3}', '{"model.safetensors": {"sha256": 3}}', '{"../x": {"sha256": "0"}}', "[" * 9999],
)
def test_a_manifest_that_is_none_is_a_sentence(manifest: str, tmp_path: Path) -> None:
    saved = save(tmp_path)
    (saved.path / "manifest.json").write_text(manifest)
    for read in (Checkpoint.digest, Checkpoint.tensors, Checkpoint.metadata):
        with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
            read(Checkpoint(saved.path), "model")


def test_files_that_hold_something_else_than_their_manifest_says_of_them(tmp_path: Path) -> None:
    """A manifest that fits, by a mistake or on purpose."""
    saved = save(tmp_path)
    manifest = json.loads((saved.path / "manifest.json").read_text())
    for name in ("model.safetensors", "progress.json"):
        (saved.path / name).write_bytes(b"[3]")
        manifest[name]["sha256"] = sha256(b"[3]").hexdigest()
    (saved.path / "manifest.json").write_text(json.dumps(manifest))
    again = Checkpoint(saved.path)
    for read in (lambda: again.tensors("model"), lambda: again.metadata("model"), lambda: again.progress):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read()
    with pytest.raises(CheckpointError, match=r"has no other\.safetensors"):
        again.digest("other")


def test_only_exact_names_are_checkpoints(tmp_path: Path) -> None:
    saved = save(tmp_path)
    for name in ("step-00000007.bak", "step-١٢٣٤٥٦٧٨", "step-", "step-7", "step-00000007 (copy)"):
        shutil.copytree(saved.path, tmp_path / name)
    assert Checkpoint.all(tmp_path) == [saved]
