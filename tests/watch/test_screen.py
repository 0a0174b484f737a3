from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from running import begun, line, logged, previewed

from gmmcli.watch.screen import screen
from gmmcli.watch.watched import Watched

SIZES = [(40, 24), (80, 24), (120, 40), (40, 5), (20, 3), (250, 80)]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A run in its second stage, with every kind of line and a preview."""
    watched = Watched(begun(tmp_path, status="finished"))
    logged(watched.path, *map(line, range(1, 51)))
    logged(watched.path, *({"step": step, "validation_accuracy": step / 100, "sample_distance": 3.0} for step in (20, 40)))
    logged(watched.path, {"step": 45, "event": "rollback", "to_step": 44, "reason": "loss 1e+09 \x1b[2J"}, *map(line, range(45, 51)))
    previewed(watched.path, 50)
    watched.refresh()
    return watched


def shown(watched: Watched, width: int, height: int, *, coloured: bool = True, keys: bool = False, styles: bool = False) -> list[str]:
    """The lines that a terminal of this size shows."""
    console = Console(
        width=width, height=height, record=True, force_terminal=True, color_system="truecolor", highlight=False, file=StringIO()
    )
    for text in screen(watched, width, height, coloured=coloured, keys=keys):
        console.print(text, soft_wrap=True)
    return console.export_text(styles=styles).splitlines()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("coloured", [True, False])
def test_a_screen_fits_its_terminal(width: int, height: int, coloured: bool, watched: Watched) -> None:
    lines = shown(watched, width, height, coloured=coloured, keys=True)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert lines[0].startswith("finished")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_tells_the_run_its_progress_curves_and_events(width: int, watched: Watched) -> None:
    lines = shown(watched, width, 40, keys=True)
    text = "\n".join(lines)
    assert lines[0].startswith("finished  2026-01-01T000000Z-small")
    assert f"{lines[1]}  ".startswith("step 50 of 100 (50%)  epoch 5  ")
    assert lines[2] == "━" * width
    for title in ("loss 2", "validation accuracy 40.0%", "E real 1.2", "E sampled 1", "batch accuracy 50.0%", "sample distance 3"):
        assert title in text
    assert "step 45: rolled back to step 44: " in text
    assert "\x1b" not in text
    assert "preview-00000050.png" in text
    assert "▀" in text


def test_wide_terminals_have_the_picture_beside_the_curves_and_narrow_ones_below(watched: Watched) -> None:
    for width, beside in ((120, True), (80, False)):
        rows = [any("\u2801" <= character <= "\u28ff" for character in row) for row in shown(watched, width, 40) if "▀" in row]
        assert any(rows) == beside
    assert "q to quit" in shown(watched, 80, 24, keys=True)[0]
    assert "q to quit" not in shown(watched, 80, 24)[0]
    assert "stage 2 of 2" in shown(watched, 80, 24)[1]


def test_both_energies_have_the_same_axis(watched: Watched) -> None:
    titles = [row for row in shown(watched, 80, 40) if "E real" in row or "E sampled" in row]
    assert "\n".join(titles).count("1.02 to 50.1") == 2


def test_without_colours_the_path_of_the_preview_stands_for_it(watched: Watched) -> None:
    text = "\n".join(shown(watched, 200, 60, coloured=False))
    assert "▀" not in text
    assert "newest preview: samples/preview-00000050.png" in text


def test_the_preview_has_its_colours(watched: Watched) -> None:
    rows = [row for row in shown(watched, 120, 40, styles=True) if "▀" in row]
    assert {colour for row in rows for colour in ("0;0;0", "128;128;128", "255;255;255") if f"38;2;{colour}" in row} == {
        "0;0;0",
        "128;128;128",
        "255;255;255",
    }


def test_a_preview_that_cannot_be_read_is_left_out(watched: Watched) -> None:
    assert watched.preview
    watched.preview.write_bytes(b"torn")
    assert "▀" not in "\n".join(shown(watched, 120, 40))


@pytest.mark.parametrize("facts", [{}, {"steps": None}])
def test_a_run_before_its_first_line(facts: dict[str, object], tmp_path: Path) -> None:
    watched = Watched(begun(tmp_path, **facts))
    watched.refresh()
    assert shown(watched, 80, 24)[:2] == ["killed  2026-01-01T000000Z-small", "no line in metrics.jsonl yet"]


def test_values_that_are_none_do_not_spoil_the_screen(tmp_path: Path) -> None:
    watched = Watched(begun(tmp_path))
    logged(watched.path, line(3, loss=None, epoch=None, stage=None, images_per_sec=None))
    watched.refresh()
    assert shown(watched, 80, 24)[1].startswith("step 3 of 100 (3%)  logged ")
