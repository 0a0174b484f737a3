"""Previews: pictures of the buffer during training."""

import pytest
from PIL import Image
from trainings import DIS, Begin, trained


def test_previews_are_pictures_of_the_buffer(begin: Begin) -> None:
    run = trained(*begin("log.preview_every=2"))
    files = sorted((run.path / "samples").iterdir())
    assert [file.name for file in files] == ["preview-00000002.png", "preview-00000004.png", "preview-00000005.png"]
    pictures = [Image.open(file).convert("RGB") for file in files]
    assert all(picture.size > (10 * 48, 10 * 48) for picture in pictures)
    assert pictures[0].tobytes() != pictures[1].tobytes()


@pytest.mark.parametrize(("target", "named"), [("conditional", True), ("marginal", False)])
def test_previews_name_no_class_where_chains_have_none(begin: Begin, monkeypatch: pytest.MonkeyPatch, target: str, named: bool) -> None:
    rows: list[str] = []
    monkeypatch.setattr("gmmcli.train.preview.save_grid", lambda drawn, *rest: rows.extend(name for name, _ in drawn))
    trained(*begin(f"chains.target.kind={target}", "log.preview_every=5"))
    assert len(rows) == 10
    assert rows == [str(k) if named else "" for k in range(10)]


def test_a_training_without_chains_draws_no_previews(begin: Begin) -> None:
    run = trained(*begin(DIS, "log.preview_every=2"))
    assert not (run.path / "samples").exists()
    assert not run.checkpoint().has("buffer")
