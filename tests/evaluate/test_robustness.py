import json
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import EPS, GAPS, PGD, Toy, arrays, fallen, saved

from gmmcli.attacks.attack import Attack
from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.errors import RecipeError
from gmmcli.evaluate.carlini import carlini
from gmmcli.evaluate.classification import accuracy
from gmmcli.evaluate.robustness import robust_accuracy, save_adversarial
from gmmcli.metrics.intervals import wilson_interval


def test_accuracy_falls_at_the_distances_of_the_images_and_is_the_clean_one_at_0(toy: Toy) -> None:
    subject = toy()
    values = robust_accuracy(subject, PGD, [8 / 255, 0.0, 4 / 255]).result["values"]
    assert list(values["eps"]) == ["0", "4/255", "8/255"]
    for text, eps in (("0", 0.0), ("4/255", 4 / 255), ("8/255", 8 / 255)):
        row = values["eps"][text]
        assert row["eps"] == eps
        assert row["accuracy"] == (8 - fallen(eps)) / 8
        assert row["ci95"] == list(wilson_interval(8 - fallen(eps), 8))
    assert values["eps"]["0"]["accuracy"] == values["clean_accuracy"] == 1.0
    assert values["clean_ci95"] == list(wilson_interval(8, 8))
    assert values["eps"]["0"]["forwards"] == 0 and values["eps"]["0"]["zero_gradient_share"] is None
    assert values["largest_change"]["linf"] == pytest.approx(8 / 255, rel=1e-4)
    assert values["largest_change"]["l2"] <= sqrt(64) * 8 / 255


@pytest.mark.parametrize(
    "attack", [Attack("fgsm", "margin", steps=1), PGD, Attack("apgd", "dlr", steps=4), Attack("square", "margin", steps=100)], ids=str
)
def test_every_attack_is_a_result_of_its_own_saved_image_by_image(attack: Attack, toy: Toy) -> None:
    subject = toy()
    measured = robust_accuracy(subject, attack, [8 / 255, 1.0])
    result = measured.result
    assert [*subject.run.results().values()] == [result]
    assert (result["command"], result["step"], result["n"], result["dataset"]) == (f"attack {attack.kind}", 7, 8, "blocks")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["protocol"]["kind"] == attack.kind and result["protocol"]["steps"] == attack.steps
    fell, labels = saved(subject, f"attack-{attack.kind}").values()
    assert labels.tolist() == subject.images.labels.tolist()
    for row in result["values"]["eps"].values():
        assert row["accuracy"] == (fell > row["eps"]).mean()
    assert (fell * 255 * 2 >= np.array(GAPS)).all()


def test_an_image_misclassified_from_the_start_is_broken_at_every_radius(toy: Toy) -> None:
    subject = toy()
    subject.images.labels[0] = 3
    values = robust_accuracy(subject, PGD, [0.0, 1 / 255]).result["values"]
    assert values["clean_accuracy"] == values["eps"]["0"]["accuracy"] == values["eps"]["1/255"]["accuracy"] == 7 / 8
    assert saved(subject, "attack-pgd")["fell"][0] == 0.0
    assert values["largest_change"] == {"linf": 0.0, "l2": 0.0}


def test_a_masked_figure_says_so(toy: Toy) -> None:
    measured = robust_accuracy(toy(scale=1e4), Attack("pgd", "ce", steps=4), EPS)
    rows = measured.result["values"]["eps"].values()
    assert [row["accuracy"] for row in rows] == [1.0, 1.0, 1.0]
    assert [row["zero_gradient_share"] for row in rows] == [1.0, 1.0, 1.0]
    assert list(measured.warnings) == ["100.0% of the gradients are zero in every pixel: this accuracy is masked; run gmmc attack audit"]


def test_an_unmasked_one_is_silent_but_where_cross_entropy_is_not_to_be_trusted(toy: Toy) -> None:
    subject = toy()
    assert not robust_accuracy(subject, PGD, EPS).warnings
    assert not robust_accuracy(subject, Attack("pgd", "ce-scaled", steps=4), EPS).warnings
    (warning,) = robust_accuracy(subject, Attack("pgd", "ce", steps=4), EPS).warnings
    assert "gmmc attack audit" in warning


def test_divided_logits_are_attacked_where_the_scale_is_given(toy: Toy) -> None:
    measured = robust_accuracy(toy(scale=1e4), Attack("pgd", "ce", steps=4), EPS, scale=1e4)
    assert [row["accuracy"] for row in measured.result["values"]["eps"].values()] == [(8 - fallen(eps)) / 8 for eps in EPS]
    assert "logits / 10000, float32" in measured.result["protocol"]["output"]


def test_in_float64_cross_entropy_has_gradients_at_gaps_where_float32_has_none(toy: Toy) -> None:
    """Gaps of 75 to 250: most of them beyond what float32's softmax can tell from certainty, all within what float64's can."""
    subject = toy(scale=100.0)
    attack = Attack("pgd", "ce", steps=4)
    single, double = (robust_accuracy(subject, attack, [0.2], float64=float64).result for float64 in (False, True))
    assert single["values"]["eps"]["51/255"]["zero_gradient_share"] > 0.4
    assert double["values"]["eps"]["51/255"]["zero_gradient_share"] == 0.0
    assert "float64" in double["protocol"]["output"] and "float32" in single["protocol"]["output"]


@pytest.mark.parametrize("float64", [False, True])
def test_the_model_can_be_used_after_an_attack_as_before(float64: bool, toy: Toy) -> None:
    subject = toy()
    subject.model.train()
    subject.model.backbone.eval()
    subject.model.head.bias.requires_grad_(False)
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    robust_accuracy(subject, PGD, EPS, float64=float64)
    assert (subject.model.training, subject.model.backbone.training, subject.model.head.training) == (True, False, True)
    assert [parameter.requires_grad for parameter in subject.model.parameters()] == [True, False]
    assert all(parameter.grad is None for parameter in subject.model.parameters())
    for key, value in subject.model.state_dict().items():
        assert value.dtype == before[key].dtype and torch.equal(value, before[key])
    assert accuracy(subject).result["values"]["accuracy"] == 1.0


def test_saved_images_are_misclassified_where_they_fell_and_clean_elsewhere(toy: Toy, tmp_path: Path) -> None:
    subject = toy()
    path = tmp_path / "new" / "found.npz"
    assert robust_accuracy(subject, PGD, EPS, save_to=path).pictures == [path]
    found = arrays(path)
    assert (found["images"].shape, found["images"].dtype) == ((8, 8, 8, 1), np.float32)
    assert 0 <= found["images"].min() <= found["images"].max() <= 1
    assert sorted(found["fell"].tolist()) == pytest.approx(sorted([EPS[0], EPS[0], EPS[1], EPS[1], EPS[2], EPS[2], inf, inf]))
    pixels = torch.from_numpy(found["images"]).permute(0, 3, 1, 2)
    predicted = subject.model(2 * pixels - 1).argmax(1).numpy()
    assert np.array_equal(predicted != found["labels"], np.isfinite(found["fell"]))
    change = (pixels - subject.images.images.float() / 255).abs().flatten(1).amax(1).numpy()
    assert (change <= np.where(np.isfinite(found["fell"]), found["fell"], 0) + 1e-6).all()


def test_the_same_seed_gives_the_same_result_and_torchs_generator_stays_where_it_was(toy: Toy) -> None:
    subjects = toy(name="a"), toy(name="b")
    state = torch.get_rng_state()
    first, again = (robust_accuracy(subject, Attack("square", "margin", steps=20), EPS).result["values"] for subject in subjects)
    assert first == again
    assert torch.equal(torch.get_rng_state(), state)


def test_where_no_image_is_classified_correctly_accuracy_is_0_and_there_is_no_smallest_change(toy: Toy) -> None:
    subject = toy(shift=1)
    values = robust_accuracy(subject, PGD, EPS).result["values"]
    assert values["clean_accuracy"] == 0.0
    assert [row["accuracy"] for row in values["eps"].values()] == [0.0, 0.0, 0.0]
    assert [row["forwards"] for row in values["eps"].values()] == [0, 0, 0]
    with pytest.raises(RecipeError, match="classifies none of these 8 images correctly"):
        carlini(subject, CarliniWagner(steps=1))
    assert [result["command"] for result in subject.run.results().values()] == ["attack pgd"]


def test_what_a_run_of_few_classes_cannot_be_attacked_with_is_no_result(toy: Toy) -> None:
    subject = toy(n_classes=3)
    with pytest.raises(RecipeError, match="this run has 3 classes"):
        robust_accuracy(subject, Attack("apgd", "dlr-targeted"), EPS)
    assert subject.run.results() == {}


def test_progress_is_said_to_its_end_unless_quiet(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    subject = toy()
    robust_accuracy(subject, PGD, EPS)
    assert capsys.readouterr() == ("", "")
    robust_accuracy(subject, PGD, EPS, quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "pgd-margin 24/24" in err and "at 8/255, 2 still classified correctly" in err


def test_adversarial_images_are_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "adversarial.npz"
    path.write_bytes(b"those of before")

    def interrupted(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(OSError, match="no space"):
        save_adversarial(path, torch.zeros(2, 1, 8, 8), fell=np.zeros(2), labels=np.zeros(2))
    assert path.read_bytes() == b"those of before"
    assert list(tmp_path.iterdir()) == [path]
