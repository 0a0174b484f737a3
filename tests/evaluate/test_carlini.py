from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import GAPS, Toy, arrays, saved

from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.evaluate.carlini import carlini
from gmmcli.metrics.intervals import wilson_interval


def test_the_smallest_change_is_the_distance_to_the_boundary_of_what_is_classified_correctly_and_drawn(toy: Toy) -> None:
    subject = toy()
    subject.images.labels[0] = 3
    measured = carlini(subject, CarliniWagner(steps=40, searches=7))
    true = np.array(GAPS[1:]) / 255 * 16 / sqrt(32)  # w_y - w_k: 32 pixels of weight 1
    values = measured.result["values"]
    assert (values["clean_accuracy"], values["success_rate"]) == (7 / 8, 1.0)
    assert values["success_ci95"] == list(wilson_interval(7, 7))
    assert values["l2_mean"] == pytest.approx(true.mean(), rel=0.05)
    assert values["l2_median"] == pytest.approx(np.median(true), rel=0.05)
    assert measured.result["protocol"]["n_attacked"] == 7
    assert [*subject.run.results().values()] == [measured.result]
    kept = saved(subject, "attack-cw")
    assert np.isnan(kept["l2"][0])
    assert kept["l2"][1:].tolist() == pytest.approx(true.tolist(), rel=0.05)
    assert measured.pictures == [subject.run.path / "figures" / "attack-cw-steps-40-searches-7.png"]
    with Image.open(measured.pictures[0]) as picture:
        assert picture.format == "PNG"
        picture.load()


def test_the_picture_goes_and_the_images_are_saved_where_one_says(toy: Toy, tmp_path: Path) -> None:
    subject = toy()
    subject.images.labels[0] = 3
    out, save = tmp_path / "new" / "x.png", tmp_path / "newer" / "x.npz"
    measured = carlini(subject, CarliniWagner("next", steps=20, searches=6, learning_rate=0.02), out=out, save_to=save, float64=True)
    assert measured.pictures == [out, save]
    assert out.is_file() and not (subject.run.path / "figures").exists()
    found = arrays(save)
    pixels = torch.from_numpy(found["images"]).permute(0, 3, 1, 2)
    assert torch.equal(pixels[0], subject.images.images[0].float() / 255)
    predicted = subject.model.float()(2 * pixels - 1).argmax(1)
    assert predicted[1:].tolist() == ((subject.images.labels[1:] + 1) % 4).tolist()


def test_where_nothing_deceives_there_is_a_rate_of_0_no_norm_and_no_picture(toy: Toy) -> None:
    subject = toy()
    measured = carlini(subject, CarliniWagner(steps=1, searches=1, learning_rate=1e-6))
    values = measured.result["values"]
    assert (values["success_rate"], values["l2_mean"], values["l2_median"]) == (0.0, None, None)
    assert measured.pictures == []
    assert (saved(subject, "attack-cw")["l2"] == inf).all()
