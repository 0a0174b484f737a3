import hashlib
from pathlib import Path

import pytest
import torch

from gmmcli.errors import MissingPartError
from gmmcli.metrics.features.weights import read_weights


def test_tensors_are_read_from_the_file_of_the_hash_and_from_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(3)}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path, "w", sha256, "")["a"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(MissingPartError, match=rf"^{path} is not w: its sha256 is [0-9a-f]{{64}}, not {sha256}$") as caught:
        read_weights(path, "w", sha256, "get another")
    assert (caught.value.exit_code, caught.value.hint) == (4, "get another")


def test_a_file_that_is_replaced_after_it_was_hashed_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, load = tmp_path / "w.pth", torch.load
    torch.save({"a": torch.arange(3)}, path)

    def load_late(file: object, **more: object) -> object:
        path.write_bytes(b"another's")
        return load(file, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "load", load_late)
    assert read_weights(path, "w", hashlib.sha256(path.read_bytes()).hexdigest(), "")["a"].tolist() == [0, 1, 2]
