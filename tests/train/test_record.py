"""What a training writes while it runs."""

import pytest
import torch
from PIL import Image
from trainings import DIS, GEN, Begin, trained

JOINT = """stages=[{epochs=1,objective={kind="center-regression"}},
                   {epochs=1,ramp_epochs=1,objective={kind="contrastive-divergence",margin=2.0}}]"""


EVERY_LINE = {"step", "epoch", "stage", "lr", "loss", "accuracy", "grad_norm", "images_per_sec"}


CHAINS = {"energy_data", "energy_model", "energy_start", "moved", "still", "descending"}


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ((DIS,), EVERY_LINE | {"energy_data"}),
        ((GEN,), EVERY_LINE | CHAINS | {"below_bound"}),
        ((GEN, "stages.0.objective.margin=0.0"), EVERY_LINE | CHAINS),
        ((GEN, "chains.sampler.n_steps=1"), EVERY_LINE | CHAINS - {"descending"} | {"below_bound"}),
        (("model.head.kind=linear", "stages.0.objective.kind=cross-entropy"), EVERY_LINE | {"energy_data"}),
    ],
)
def test_every_metrics_line_has_its_keys_and_finite_values(begin: Begin, overrides: tuple[str, ...], keys: set[str]) -> None:
    lines = trained(*begin(*overrides)).metrics()
    assert [set(line) for line in lines] == [keys] * len(lines)
    assert all(torch.isfinite(torch.tensor(list(line.values()))).all() for line in lines)
    assert all(0 <= line.get(share, 0) <= 1 for line in lines for share in ("accuracy", "below_bound", "descending", "still"))


def test_metrics_lines_say_step_epoch_stage_and_rate(begin: Begin) -> None:
    lines = trained(*begin(JOINT, "log.every=3", "optim.warmup_steps=10")).metrics()
    assert [line["step"] for line in lines] == [3, *range(5, 11)]  # the last step always, and all around the switch of stages
    assert [line["epoch"] for line in lines] == [line["step"] / 5 for line in lines]
    assert [line["stage"] for line in lines] == [0, 0, 1, 1, 1, 1, 1]
    assert [line["lr"] for line in lines] == pytest.approx([line["step"] * 1e-4 for line in lines])


def test_moved_is_the_steps_length_over_the_pixels(begin: Begin) -> None:
    """One step of length 0.2 over 64 pixels, unclamped or nearly so: far below, and every chain counts as still."""
    length = "chains.sampler={kind='fixed-length',n_steps=1,step_size=%s}"
    start = ("chains.start.kind=class-gaussian", "chains.start.rank=1")
    for step_size, still in ((0.2, 0.0), (0.01, 1.0)):
        lines = [line for line in trained(*begin(length % step_size, *start)).metrics() if "loss" in line]
        assert all(0.5 * step_size / 8 < line["moved"] <= 1.0001 * step_size / 8 for line in lines)  # on black a chain meets the clamp
        assert [line["still"] for line in lines] == [still] * 5


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
    monkeypatch.setattr("gmmcli.train.record.save_grid", lambda drawn, *rest: rows.extend(name for name, _ in drawn))
    trained(*begin(f"chains.target.kind={target}", "log.preview_every=5"))
    assert len(rows) == 10
    assert rows == [str(k) if named else "" for k in range(10)]


def test_a_training_without_chains_draws_no_previews(begin: Begin) -> None:
    run = trained(*begin(DIS, "log.preview_every=2"))
    assert not (run.path / "samples").exists()
    assert not run.checkpoint().has("buffer")
