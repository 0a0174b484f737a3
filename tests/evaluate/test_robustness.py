import json
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gmmcli.attacks import audit as audits
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.bounded import over_eps
from gmmcli.attacks.carlini import CarliniWagner
from gmmcli.core.classifier import Classifier
from gmmcli.data.dataset import Dataset, Split
from gmmcli.errors import DivergedError, RecipeError
from gmmcli.evaluate import robustness
from gmmcli.evaluate.classification import accuracy
from gmmcli.evaluate.robustness import audit, bounded, carlini
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.intervals import wilson_interval
from gmmcli.model_card import ModelCard
from gmmcli.recipe import Recipe
from gmmcli.run import Run

NAMES = ("ant", "bee", "cow", "dog")
GAPS = (6, 10, 14, 20, 6, 10, 14, 20)  # of bytes between the brightest blocks of an image: half of it is the distance in linf
PGD = Attack("pgd", "margin", steps=4)
EPS = (4 / 255, 6 / 255, 8 / 255)
Toy = Callable[..., Subject]


def split(gaps: tuple[int, ...], labels: list[int]) -> Split:
    """Images brightest in the quarter of their class, by so much, and next brightest in the next."""
    images = torch.full((len(gaps), 64), 51)
    for image, gap, label in zip(images, gaps, labels, strict=True):
        for k, brightness in (((label + 1) % 4, 128), (label, 128 + gap)):
            image[16 * k : 16 * (k + 1)] = brightness
    return Split(images.byte().view(-1, 1, 8, 8), torch.tensor(labels))


@pytest.fixture
def toy(tiny_recipe: Recipe, tmp_path: Path) -> Toy:
    """A run whose logits are the brightness of each quarter, times a scale, and images at known distances from the boundary."""

    def made(scale: float = 1.0, name: str = "toy", n_classes: int = 4, shift: int = 0) -> Subject:
        head = nn.Linear(64, n_classes)
        head.weight.data.copy_(scale * torch.eye(4).repeat_interleave(16, 1)[:n_classes])
        head.bias.data.zero_()
        model = Classifier(nn.Flatten(), head)
        model.gamma2 = 1.0
        run = Run(tmp_path / name)
        run.path.mkdir()
        images, labels = split(GAPS, [0, 1, 2, 3, 2, 3, 0, 1]).batch()
        test = Split(images, (labels + shift) % 4)
        if n_classes == 3:
            test = test.take(np.flatnonzero(test.labels < 3))
        card = ModelCard(tiny_recipe, NAMES[:n_classes], (1, 8, 8), 1.0)
        return Subject(run, 7, card, model, Dataset("blocks", NAMES[:n_classes], test, test, test), "test")

    return made


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def saved(subject: Subject, name: str) -> dict[str, np.ndarray]:
    return arrays(max((subject.run.path / "results").glob(f"{name}*.npz"), key=lambda path: path.stat().st_mtime_ns))


def fallen(eps: float) -> int:
    """How many of the images are no further from the boundary than this."""
    return sum(gap / 2 <= 255 * eps for gap in GAPS)


def test_accuracy_falls_at_the_distances_of_the_images_and_is_the_clean_one_at_0(toy: Toy) -> None:
    subject = toy()
    values = bounded(subject, PGD, [8 / 255, 0.0, 4 / 255]).result["values"]
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
    measured = bounded(subject, attack, [8 / 255, 1.0])
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
    values = bounded(subject, PGD, [0.0, 1 / 255]).result["values"]
    assert values["clean_accuracy"] == values["eps"]["0"]["accuracy"] == values["eps"]["1/255"]["accuracy"] == 7 / 8
    assert saved(subject, "attack-pgd")["fell"][0] == 0.0
    assert values["largest_change"] == {"linf": 0.0, "l2": 0.0}


def test_a_masked_figure_says_so(toy: Toy) -> None:
    measured = bounded(toy(scale=1e4), Attack("pgd", "ce", steps=4), EPS)
    rows = measured.result["values"]["eps"].values()
    assert [row["accuracy"] for row in rows] == [1.0, 1.0, 1.0]
    assert [row["zero_gradient_share"] for row in rows] == [1.0, 1.0, 1.0]
    assert list(measured.warnings) == ["100.0% of the gradients are all zero: this figure is masked; run gmmc attack audit"]


def test_an_unmasked_one_is_silent_but_where_cross_entropy_is_not_to_be_trusted(toy: Toy) -> None:
    subject = toy()
    assert not bounded(subject, PGD, EPS).warnings
    assert not bounded(subject, Attack("pgd", "ce-scaled", steps=4), EPS).warnings
    (warning,) = bounded(subject, Attack("pgd", "ce", steps=4), EPS).warnings
    assert "gmmc attack audit" in warning


def test_divided_logits_are_attacked_where_the_scale_is_given(toy: Toy) -> None:
    measured = bounded(toy(scale=1e4), Attack("pgd", "ce", steps=4), EPS, scale=1e4)
    assert [row["accuracy"] for row in measured.result["values"]["eps"].values()] == [(8 - fallen(eps)) / 8 for eps in EPS]
    assert "logits / 10000, float32" in measured.result["protocol"]["output"]


def test_in_float64_cross_entropy_has_gradients_at_gaps_where_float32_has_none(toy: Toy) -> None:
    """Gaps of 75 to 250: most of them beyond what float32's softmax can tell from certainty, all within what float64's can."""
    subject = toy(scale=100.0)
    attack = Attack("pgd", "ce", steps=4)
    single, double = (bounded(subject, attack, [0.2], float64=float64).result for float64 in (False, True))
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
    bounded(subject, PGD, EPS, float64=float64)
    assert (subject.model.training, subject.model.backbone.training, subject.model.head.training) == (True, False, True)
    assert [parameter.requires_grad for parameter in subject.model.parameters()] == [True, False]
    assert all(parameter.grad is None for parameter in subject.model.parameters())
    for key, value in subject.model.state_dict().items():
        assert value.dtype == before[key].dtype and torch.equal(value, before[key])
    assert accuracy(subject).result["values"]["accuracy"] == 1.0


def test_saved_images_are_misclassified_where_they_fell_and_clean_elsewhere(toy: Toy, tmp_path: Path) -> None:
    subject = toy()
    path = tmp_path / "new" / "found.npz"
    assert bounded(subject, PGD, EPS, save=path).pictures == [path]
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
    first, again = (bounded(subject, Attack("square", "margin", steps=20), EPS).result["values"] for subject in subjects)
    assert first == again
    assert torch.equal(torch.get_rng_state(), state)


def test_where_no_image_is_classified_rightly_accuracy_is_0_and_there_is_no_smallest_change(toy: Toy) -> None:
    subject = toy(shift=1)
    values = bounded(subject, PGD, EPS).result["values"]
    assert values["clean_accuracy"] == 0.0
    assert [row["accuracy"] for row in values["eps"].values()] == [0.0, 0.0, 0.0]
    assert [row["forwards"] for row in values["eps"].values()] == [0, 0, 0]
    with pytest.raises(RecipeError, match="classifies none of these 8 images rightly"):
        carlini(subject, CarliniWagner(steps=1))
    assert [result["command"] for result in subject.run.results().values()] == ["attack pgd"]


def test_what_a_run_of_few_classes_cannot_be_attacked_with_is_no_result(toy: Toy) -> None:
    subject = toy(n_classes=3)
    with pytest.raises(RecipeError, match="this run has 3 classes"):
        bounded(subject, Attack("apgd", "dlr-targeted"), EPS)
    assert subject.run.results() == {}


def test_a_model_that_is_not_finite_has_no_robustness(toy: Toy, small: None) -> None:
    subject = toy(scale=nan)
    subject.images.labels.zero_()
    for measure in (lambda: bounded(subject, PGD, EPS), lambda: carlini(subject, CarliniWagner(steps=1)), lambda: audit(subject)):
        with pytest.raises(DivergedError, match="not finite"):
            measure()


def test_progress_is_said_to_its_end_unless_quiet(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    subject = toy()
    bounded(subject, PGD, EPS)
    assert capsys.readouterr() == ("", "")
    bounded(subject, PGD, EPS, quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "pgd-margin 24/24" in err and "at 8/255, 2 standing" in err


def test_the_smallest_change_is_the_distance_to_the_boundary_of_what_is_classified_rightly_and_drawn(toy: Toy) -> None:
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
    measured = carlini(subject, CarliniWagner("next", steps=20, searches=6, learning_rate=0.02), out=out, save=save, float64=True)
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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit of three attacks, a fourth at 8/255, and two radii, whose figures stay empty."""
    monkeypatch.setattr(
        audits, "SUITE", (Attack("pgd", "ce", steps=2), Attack("pgd", "margin", steps=2), Attack("square", "margin", steps=20))
    )
    monkeypatch.setattr(audits, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=4)})
    monkeypatch.setattr(audits, "EPS", (4 / 255, 8 / 255))
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])


def fired(result: dict[str, Any]) -> set[str]:
    return {verdict["name"] for verdict in result["values"]["verdicts"] if verdict["fired"]}


def test_the_audit_of_a_saturated_run_distrusts_cross_entropy_and_that_of_another_does_not(toy: Toy, small: None) -> None:
    masked, honest = audit(toy(scale=1e4, name="masked")), audit(toy(name="honest"))
    assert fired(masked.result) == {"zero gradients", "margin beats CE by more than 5 points"}
    assert fired(honest.result) == set()
    assert len(masked.warnings) == 2 and not honest.warnings
    for measured in (masked, honest):
        values = measured.result["values"]
        assert {eps: row["accuracy"] for eps, row in values["worst_case"].items()} == {"4/255": 0.75, "8/255": 0.25}
        assert values["clean_accuracy"] == 1.0
        assert all(
            row["accuracy"] >= values["worst_case"][eps]["accuracy"] for rows in values["attacks"].values() for eps, row in rows.items()
        )
    assert "overstated it by 75.0 points" in masked.result["values"]["sentence"]
    assert "overstated it by 0.0 points" in honest.result["values"]["sentence"]


def test_an_audit_is_saved_with_the_radius_at_which_each_image_fell_to_each_attack(toy: Toy, small: None) -> None:
    subject = toy()
    result = audit(subject).result
    assert result == subject.run.result("attack audit")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    kept = saved(subject, "attack-audit")
    assert set(kept) == {"pgd-ce", "pgd-margin", "square", "pgd-margin_x2_steps", "labels"}
    worst = np.min([fell for name, fell in kept.items() if name != "labels"], axis=0)
    assert worst.tolist() == pytest.approx([4 / 255 if gap == 6 else 8 / 255 if gap < 20 else inf for gap in GAPS])
    assert set(result["protocol"]["attacks"]) == {"pgd-ce", "pgd-margin", "square", "pgd-margin x2 steps"}


def test_what_a_run_of_few_classes_cannot_be_audited_with_is_named(toy: Toy) -> None:
    subject = toy(n_classes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audits, "SUITE", tuple(replace(attack, steps=1) for attack in audits.SUITE))
        patch.setattr(audits, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=2)})
        patch.setattr(audits, "EPS", (8 / 255,))
        patch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])
        protocol = audit(subject).result["protocol"]
    assert protocol["left_out"] == ["pgd-dlr-targeted", "apgd-dlr-targeted"]
    assert protocol["gradient"] == "of each image's own loss"  # what tells results from those of the mean over a batch
    assert "pgd-dlr" in protocol["attacks"] and "pgd-dlr-targeted" not in protocol["attacks"]


def interrupted_audit(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Interrupt an audit during its third attack; return the names of those that were done, to which the caller may add."""
    done: list[str] = []

    def interrupted(attack: Attack, *more: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(attack.name)
        return over_eps(attack, *more)

    monkeypatch.setattr(robustness, "over_eps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit(subject)
    return done


def test_an_interrupted_audit_goes_on_where_it_stopped_and_ends_as_an_undisturbed_one(
    toy: Toy, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, undisturbed = toy(name="a"), audit(toy(name="b")).result
    done = interrupted_audit(subject, monkeypatch)
    assert done == ["pgd-ce", "pgd-margin"]
    assert subject.run.result("attack audit") is None
    assert subject.model.training

    repeated: list[int] = []

    def counted(attack: Attack, *more: Any) -> Any:
        repeated.append(attack.steps)
        return over_eps(attack, *more)

    monkeypatch.setattr(robustness, "over_eps", counted)
    result = audit(subject).result
    assert repeated == [20, 4]
    assert (result["values"], result["protocol"]) == (undisturbed["values"], undisturbed["protocol"])
    assert sorted(path.name for path in (subject.run.path / "results").iterdir()) == ["attack-audit.json", "attack-audit.npz"]
    audit(subject)
    assert repeated[2:] == [2, 2, 20, 4]


@pytest.mark.parametrize("other", [{"seed": 2, "n": 6}, {"n": 6}, {"step": 8}, {"split": "validation"}])
def test_an_audit_does_not_go_on_with_one_of_something_else(
    other: dict[str, Any], toy: Toy, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = toy()
    done = interrupted_audit(subject, monkeypatch)
    monkeypatch.setattr(robustness, "over_eps", lambda attack, *more: done.append(attack.name) or over_eps(attack, *more))
    audit(replace(subject, **other))
    assert len(done) == 2 + 4


def test_what_deceives_another_run_is_tried_too(toy: Toy, small: None) -> None:
    """Two runs of the same boundaries: what deceives the one deceives the other."""
    subject, other = toy(name="a"), toy(scale=3.0, name="b")
    result = audit(subject, transfer=other).result
    values = result["values"]
    assert result["protocol"]["transfer_from"] == "b"
    assert {eps: row["accuracy"] for eps, row in values["attacks"]["transfer"].items()} == {"4/255": 0.75, "8/255": 0.25}
    assert "worst case of 5 attacks" in values["sentence"]
    assert "transfer" in saved(subject, "attack-audit")


@pytest.mark.parametrize("shift", [0, 1])
def test_there_may_be_nothing_left_to_transfer(shift: int, toy: Toy, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image has fallen before the last radius, or the other run classifies none of them rightly."""
    monkeypatch.setattr(audits, "EPS", (8 / 255, 0.2, 1.0))
    subject, other = toy(name="a"), toy(name="b")
    other.model.head.weight.data = other.model.head.weight.data.roll(shift, 0)
    values = audit(subject, transfer=other).result["values"]
    assert values["attacks"]["transfer"]["1"]["accuracy"] == float(shift)


def test_an_audit_is_drawn_in_the_run_or_where_one_says(toy: Toy, small: None, tmp_path: Path) -> None:
    subject = toy()
    figures = subject.run.path / "figures"
    assert audit(subject).pictures == [figures / "attack-audit.png", figures / "attack-audit.svg"]
    assert audit(subject, out=tmp_path / "new" / "x.png").pictures == [tmp_path / "new" / "x.png", tmp_path / "new" / "x.svg"]


def test_the_picture_of_other_images_does_not_take_the_place_of_the_runs_own(toy: Toy, small: None) -> None:
    subject = toy()
    other = replace(subject, split="validation")
    for about in (subject, other):
        assert audit(about).pictures[0] == subject.run.path / "figures" / f"{about.name('attack audit').replace(' ', '-')}.png"


def test_an_audit_of_nothing_right_believes_in_nothing(toy: Toy, small: None) -> None:
    values = audit(toy(shift=1)).result["values"]
    assert values["clean_accuracy"] == values["zero_gradient_share"] == 0.0
    assert {row["accuracy"] for row in values["worst_case"].values()} == {0.0}


def test_adversarial_images_are_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "adversarial.npz"
    path.write_bytes(b"those of before")

    def interrupted(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(OSError, match="no space"):
        robustness._saved(path, torch.zeros(2, 1, 8, 8), np.zeros(2), torch.zeros(2))
    assert path.read_bytes() == b"those of before"
    assert list(tmp_path.iterdir()) == [path]
