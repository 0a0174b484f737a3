import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten import checkpoint, save, scored, write
from PIL import Image

from gmmcli.report.collect import gather
from gmmcli.report.strips import samples
from gmmcli.run import Run

NAMES = ("cat", "dog", "fox")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return checkpoint(scored(write(tmp_path), 0.9), NAMES)


def of(run: Run) -> Any:
    """What is shown of the run's samples, or None."""
    return samples(*gather([run]))


def pictures(n: int, channels: int = 1, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, side, side)).astype(np.uint8)


def strip(png: str, side: int, gap: int) -> list[np.ndarray]:
    """The images of a strip that are there, as (height, width, channel)."""
    with Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))) as picture:
        pixels = np.asarray(picture)
    assert not pixels[:, [x for x in range(pixels.shape[1]) if x % (side + gap) >= side], 3].any()  # seen through
    parts = (pixels[:, x : x + side] for x in range(0, pixels.shape[1], side + gap))
    return [part[..., :3] for part in parts if part[..., 3].all()]


def same(strips: list[np.ndarray], images: np.ndarray) -> bool:
    return np.array_equal(strips, np.broadcast_to(images.transpose(0, 2, 3, 1), (len(images), *images.shape[2:], 3)))


SAMPLED = {"samples": {"from": "noise", "steps": 70}}


@pytest.mark.parametrize(
    ("channels", "side", "gap", "size", "per_class", "shown"),
    [
        (1, 8, 1, (318, 48), (12, 12, 12), (6, 6, 6)),
        (3, 32, 2, (336, 64), (2, 5, 3), (2, 5, 3)),
        (3, 64, 4, (404, 64), (9, 1, 9), (6, 1, 6)),
    ],
)
def test_samples_are_strips_of_some_of_each_class_with_gaps_and_enlarged(
    channels: int, side: int, gap: int, size: tuple[int, int], per_class: tuple[int, ...], shown: tuple[int, ...], run: Run
) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(range(3), per_class))
    images = pictures(len(labels), channels, side)
    save(run, "eval generate", {}, arrays={"samples": images, "labels": labels}, protocol=SAMPLED)
    found = of(run)
    assert [row["class"] for row in found["rows"]] == [*NAMES]
    assert (found["real"], found["about"]) == (False, "fresh chains, 70 steps")
    assert (found["width"], found["height"]) == size
    for k, n in enumerate(shown):
        assert same(strip(found["rows"][k]["samples"], side, gap), images[labels == k][:n])


def test_real_images_stand_beside_samples_where_the_result_holds_them(run: Run) -> None:
    samples, real = pictures(6), 255 - pictures(5)
    arrays = {"samples": samples, "labels": np.arange(6) % 3, "real": real, "real_labels": np.array([0, 0, 0, 1, 1])}
    save(run, "eval generate", {}, arrays=arrays, protocol=SAMPLED)
    found = of(run)
    assert found["real"]
    assert [len(strip(row["real"], 8, 1)) for row in found["rows"]] == [3, 2, 0]
    assert same(strip(found["rows"][1]["real"], 8, 1), real[3:])
    assert same(strip(found["rows"][1]["samples"], 8, 1), samples[[1, 4]])
    assert found["width"] == 6 * (3 * 9 - 1)


@pytest.mark.parametrize(
    ("origin", "about"),
    [
        (
            {"from": "buffer"},
            "the replay buffer (for fresh chains: gmmc sample --class all --per-class 8 --with-real)",
        ),
        ({"from": "some.npz"}, "from some.npz"),
        ({"from": "noise"}, "fresh chains"),
    ],
)
def test_samples_say_where_they_are_from(origin: dict[str, Any], about: str, run: Run) -> None:
    save(run, "eval generate", {}, arrays={"samples": pictures(3), "labels": np.arange(3)}, protocol={"samples": origin})
    assert of(run)["about"].startswith(about)


def test_fresh_samples_of_all_classes_are_shown_rather_than_those_of_the_buffer(run: Run) -> None:
    def drawn(command: str, name: str, protocol: dict[str, Any], n: int, grey: int, **about: Any) -> None:
        arrays = {"samples": np.full((3, 1, 8, 8), grey, np.uint8), "labels": np.arange(3)}
        save(run, command, {}, name, arrays | {"real": arrays["samples"], "real_labels": arrays["labels"]}, n=n, protocol=protocol, **about)

    def shown() -> int:
        return int(strip(of(run)["rows"][0]["samples"], 8, 1)[0][0, 0, 0])

    noise = {"from": "noise", "steps": 5}
    drawn("eval generate", "buffer", {"samples": {"from": "buffer"}}, 10_000, 1)
    drawn("sample", "one class", noise, 64, 2, classes=["cat"])
    drawn("sample", "buffer's", {"from": "buffer"}, 80, 3, classes=NAMES)
    assert shown() == 3
    drawn("eval generate", "fresh", {"samples": noise}, 640, 4)
    assert shown() == 4
    drawn("sample", "fresh ones", noise, 80, 5, classes=NAMES)
    drawn("sample", "fresh ones by another step", noise, 80, 6, classes=NAMES)
    assert shown() == 5


@pytest.mark.parametrize(("labels", "classes"), [([0, 1, 1], ["cat", "dog"]), ([2], ["fox"]), ([], None)])
def test_a_class_without_a_sample_has_no_row(labels: list[int], classes: list[str] | None, run: Run) -> None:
    arrays = {"samples": pictures(len(labels)), "labels": np.array(labels, int)}
    save(run, "eval generate", {}, arrays=arrays, protocol={"samples": {"from": "buffer"}})
    found = of(run)
    assert (found and [row["class"] for row in found["rows"]]) == classes
