from pathlib import Path

import pytest
from running import begun, line, logged, trained

from gmmcli.watch.watched import Watched
from gmmcli.watch.words import event, figure, progress, remaining, sentence


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """After ten of a hundred steps."""
    watched = Watched(begun(tmp_path))
    logged(watched.path, line(10))
    with trained(watched.path):
        watched.refresh()
    return watched


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("accuracy", 0.123456, "12.3%"),
        ("validation_accuracy", 1.0, "100.0%"),
        ("loss", 3.14159, "3.14"),
        ("energy_data", 1234567.0, "1,234,567"),
        ("loss", -1e-9, "-1e-09"),
    ],
)
def test_figures(key: str, value: float, said: str) -> None:
    assert figure(key, value) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (75, "1:15"), (3700, "1:01:40"), (100_000, "27:46:40"), (4e7, "462 days")])
def test_a_time_that_is_left(seconds: float, said: str) -> None:
    assert remaining(seconds) == said


def test_how_far_a_training_is(watched: Watched) -> None:
    assert progress(watched) == "step 10 of 100 (10%), 0:18 left"
    watched.provenance = {}
    assert progress(watched) == "step 10"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"step": 9, "event": "rollback", "to_step": 5, "reason": "loss nan"}, "step 9: rolled back to step 5: loss nan"),
        ({"step": 9, "event": "chains", "reason": "they stand still"}, "step 9: they stand still"),
        ({"step": 9, "event": "diverged", "reason": "loss nan"}, "step 9: diverged: loss nan"),
        ({"event": "\x1b[31m", "reason": "a\nb"}, "step None: \\x1b[31m: a\\nb"),
    ],
)
def test_events(line: dict[str, object], said: str) -> None:
    assert event(line) == said


def test_sentences(watched: Watched) -> None:
    (last,) = [watched.last]
    figures = "loss 10, E real 6, E sampled 5, batch accuracy 10.0%"
    assert sentence(last, watched) == f"step 10 of 100 (10%), 0:18 left, {figures}"
    assert sentence(line(10), watched) == f"step 10, {figures}"  # one like it, of earlier
    assert sentence({"step": 3, "validation_accuracy": 0.5, "sample_distance": None}, watched) == "step 3, validation accuracy 50.0%"
    assert sentence({"step": 3, "event": "chains", "reason": "x"}, watched) == "step 3: x"
    assert sentence({"step": 3, "loss": None}, watched) is None
