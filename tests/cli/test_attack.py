import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from animals import Gmmc, Trained

from extension import install, install_example
from gmmcli.attacks import audit
from gmmcli.attacks.algorithms import ATTACKS
from gmmcli.attacks.attack import DEFAULT_EPS, Attack
from gmmcli.attacks.within_ball import over_eps
from gmmcli.checkpoint import Checkpoint, Part
from gmmcli.cli import attack as commands
from gmmcli.cli import options
from gmmcli.core.classifier import predict
from gmmcli.errors import RecipeError
from gmmcli.evaluate import audit as auditing
from gmmcli.named import radii
from gmmcli.registry import installed
from gmmcli.run import Run

Ask = Callable[..., dict[str, Any]]
SHORT: dict[str, tuple[object, ...]] = {
    "fgsm": (),
    "pgd": ("--steps", 3),
    "apgd": ("--steps", 3),
    "square": ("--queries", 10),
    "cw": ("--steps", 3, "--searches", 2),
    "audit": (),
}
BOUNDED = ("fgsm", "pgd", "apgd", "square")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit at two radii of four attacks, and one more at 8/255."""
    suite = (Attack("pgd", "ce", steps=2), Attack("pgd", "margin", steps=2), Attack("pgd", "dlr-targeted", steps=2))
    monkeypatch.setattr(audit, "SUITE", (*suite, Attack("square", "margin", steps=5)))
    monkeypatch.setattr(audit, "AT_FOCUS", {"pgd-margin x2 steps": Attack("pgd", "margin", steps=4)})
    monkeypatch.setattr(audit, "EPS", (4 / 255, 8 / 255))


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the trained run in ./runs."""
    monkeypatch.chdir(tmp_path)
    return Run(Path(shutil.copytree(trained.path, Path("runs") / trained.path.name)))


@pytest.fixture
def right(run: Run) -> tuple[str, ...]:
    """Images that the run classifies correctly, to attack."""
    return labelled(run, 0)


@pytest.fixture
def wrong(run: Run) -> tuple[str, ...]:
    """Images none of which the run classifies correctly."""
    return labelled(run, 1)


def labelled(run: Run, shift: int) -> tuple[str, ...]:
    images = np.random.default_rng(1).integers(0, 256, (8, 8, 8)).astype(np.uint8)
    labels = (predict(run.model(), torch.from_numpy(images)[:, None]).argmax(1).numpy() + shift) % 3
    splits = {f"{name}_{kind}": array for name in ("train", "val", "test") for kind, array in (("images", images), ("labels", labels))}
    np.savez("own.npz", **splits, class_names=np.array(["cat", "dog", "fox"]))
    return "--data", "npz:own.npz"


@pytest.fixture
def ask(gmmc: Gmmc, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The object that a command answers with; figures stay empty."""
    monkeypatch.setattr("gmmcli.evaluate.plots._draw", lambda figure, *paths: [path.touch() for path in paths])

    def asked(*words: object) -> dict[str, Any]:
        result = gmmc("attack", *words, "--json")
        assert result.exit_code == 0, result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return asked


@pytest.mark.parametrize(
    ("texts", "norm", "expected"),
    [
        (None, "linf", [8 / 255]),
        (None, "l2", [0.5]),
        (["8/255"], "linf", [8 / 255]),
        (["0.031"], "linf", [0.031]),
        (["4/255,8/255, 16/255"], "linf", [4 / 255, 8 / 255, 16 / 255]),
        (["4/255", "1,0"], "linf", [4 / 255, 1.0, 0.0]),
        (["1.5,2"], "l2", [1.5, 2.0]),
        ([" 1 / 4 "], "linf", [0.25]),
    ],
)
def test_radii_are_fractions_numbers_and_lists(texts: list[str] | None, norm: str, expected: list[float]) -> None:
    assert radii(texts, norm) == expected


@pytest.mark.parametrize("verb", ATTACKS)
def test_what_a_command_does_by_itself_is_what_results_are_named_after(verb: str) -> None:
    parameters = signature(getattr(commands, f"{verb}_command")).parameters
    said = {"steps" if name == "queries" else name: parameter.default for name, parameter in parameters.items()}
    plain = asdict(ATTACKS[verb].defaults)
    agreed = {"loss", "steps", "step_size", "restarts", "norm", "seed"} & said.keys()
    assert {key: said[key] for key in agreed} == {key: plain[key] for key in agreed}
    assert {norm: radii(None, norm) for norm in ("linf", "l2")} == DEFAULT_EPS


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("text", ["x", "", "1/0", "1/x", "8/255/2", "-1", "-8/255", "nan", "inf", "0.1,", "0.1,y"])
def test_what_is_no_radius_is_said_to_be_none(text: str, norm: str) -> None:
    with pytest.raises(RecipeError, match="eps") as caught:
        radii([text], norm)
    assert caught.value.hint


@pytest.mark.parametrize(("text", "hint"), [("2", "2/255"), ("8", "8/255"), ("4/255,8", "8/255")])
def test_a_radius_beyond_the_range_of_a_pixel_is_taken_for_one_in_255ths(text: str, hint: str) -> None:
    with pytest.raises(RecipeError, match="more than the whole range of a pixel") as caught:
        radii([text], "linf")
    assert caught.value.hint == f"did you mean {hint}?"


def test_a_fraction_beyond_the_range_is_not_taken_for_a_number_of_255ths() -> None:
    with pytest.raises(RecipeError) as caught:
        radii(["300/255"], "linf")
    assert "/255/255" not in caught.value.hint


@pytest.mark.parametrize("verb", SHORT)
def test_three_classes_of_grey_images_are_enough_for_every_command(verb: str, ask: Ask, run: Run, right: tuple[str, ...]) -> None:
    document = ask(verb, *SHORT[verb], *right, *(("--loss", "margin") if verb in BOUNDED[:3] else ()))
    assert (document["schema"], document["command"], document["n"]) == (1, f"attack {verb}", 8)
    (stem,) = (stem for stem, result in run.results().items() if result == document)
    assert stem.startswith(f"attack-{verb}") and stem.endswith("own.npz-test")
    assert document["values"]["clean_accuracy"] == 1.0


@pytest.mark.parametrize("verb", BOUNDED)
def test_eps_0_is_the_accuracy_of_the_run(verb: str, ask: Ask, run: Run, trained: Trained) -> None:
    values = ask(verb, "--eps", "0", *(("--loss", "margin") if verb != "square" else ()))["values"]
    assert values["eps"]["0"]["accuracy"] == values["clean_accuracy"] == trained.answer["values"]["accuracy"]


@pytest.mark.parametrize(
    ("words", "keys"), [((), ["8/255"]), (("--norm", "l2"), ["0.5"]), (("--eps", "4/255,8/255", "--eps", "1"), ["4/255", "8/255", "1"])]
)
def test_each_radius_has_its_row_and_larger_ones_are_no_safer(
    words: tuple[str, ...], keys: list[str], ask: Ask, right: tuple[str, ...]
) -> None:
    rows = ask("pgd", "--steps", 3, "--loss", "margin", *words, *right)["values"]["eps"]
    assert list(rows) == keys
    accuracies = [row["accuracy"] for row in rows.values()]
    assert accuracies == sorted(accuracies, reverse=True)


def test_words_reach_the_attack(ask: Ask, right: tuple[str, ...]) -> None:
    words = ("--loss", "mmc", "--steps", 2, "--step-size", 0.5, "--restarts", 3, "--norm", "l2", "--seed", 7, "--scale", 4, "--float64")
    protocol = ask("pgd", *words, *right)["protocol"]
    expected = {"kind": "pgd", "loss": "mmc", "steps": 2, "step_size": 0.5, "restarts": 3, "norm": "l2", "seed": 7}
    assert {key: protocol[key] for key in expected} == expected
    assert "logits / 4, float64" in protocol["output"]
    assert ask("square", "--queries", 3, *right)["protocol"]["steps"] == 3
    assert ask("apgd", "--steps", 1, *right)["protocol"]["loss"] == "dlr"
    assert ask("fgsm", *right)["protocol"]["loss"] == "ce"
    cw = ask("cw", "--aim", "next", "--steps", 1, "--searches", 2, "--learning-rate", 0.5, *right)["protocol"]
    assert (cw["aim"], cw["steps"], cw["searches"], cw["learning_rate"]) == ("next", 1, 2, 0.5)


def test_the_same_seed_gives_the_same_answer_and_n_draws_by_it(ask: Ask, right: tuple[str, ...]) -> None:
    first, again, other = (ask("square", "--queries", 5, "--n", 6, "--seed", seed, *right) for seed in (1, 1, 2))
    assert first == again
    assert first["n"] == other["n"] == 6
    assert first["protocol"]["seed"] != other["protocol"]["seed"]


def test_what_is_said_beside_the_answer(gmmc: Gmmc, run: Run, right: tuple[str, ...]) -> None:
    words = ("attack", "pgd", "--steps", 2, "--eps", "8/255,0.1", *right)
    said = gmmc(*words).stderr
    assert f"gmmc: run {run.path}, step 6" in said
    assert "gmmc: eps 8/255 = 0.0314, 0.1 = 0.1000 in pixels of [0, 1], linf" in said
    assert "gmmc: warning: cross-entropy of unscaled logits is prone to gradient masking" in said
    assert gmmc(*words, "--loss", "margin", "--quiet").stderr == ""


def test_a_masked_figure_warns_even_when_quiet(gmmc: Gmmc, right: tuple[str, ...]) -> None:
    result = gmmc("attack", "pgd", "--steps", 2, "--scale", 1e-6, "--quiet", *right)
    assert result.exit_code == 0
    assert "this accuracy is masked; run gmmc attack audit" in result.stderr


def test_the_table_has_what_the_object_has(gmmc: Gmmc, run: Run, right: tuple[str, ...]) -> None:
    shown = gmmc("attack", "pgd", "--steps", 2, "--eps", "8/255,1", "--loss", "margin", "--quiet", *right).stdout
    result = next(result for stem, result in run.results().items() if stem.startswith("attack-pgd-loss-margin-steps-2-eps-8-255-1-"))
    for eps, row in result["values"]["eps"].items():
        low, high = row["ci95"]
        assert f"{eps} = {row['eps']:.4f}" in shown
        assert f"{100 * row['accuracy']:.2f}% [{100 * low:.2f}, {100 * high:.2f}]" in shown


@pytest.mark.parametrize("verb", [*BOUNDED, "cw"])
def test_adversarial_images_are_saved_where_one_says(verb: str, gmmc: Gmmc, right: tuple[str, ...]) -> None:
    result = gmmc("attack", verb, *SHORT[verb], "--save", "new/found.npz", *right, "-q")
    assert result.exit_code == 0, result.stderr
    assert "new/found.npz" in result.stdout.splitlines()
    with np.load("new/found.npz", allow_pickle=False) as archive:
        assert archive["images"].shape == (8, 8, 8, 1)
        assert len(archive["labels"]) == len(archive["fell"]) == 8


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [("found.png", 2, "--save found.png: adversarial images cannot be a .png"), ("a/" * 300 + "x.npz", 7, "folders deep")],
)
def test_where_no_adversarial_images_can_be_saved_nothing_is_attacked(
    place: str, code: int, says: str, gmmc: Gmmc, right: tuple[str, ...]
) -> None:
    result = gmmc("attack", "fgsm", *SHORT["fgsm"], "--save", place, *right, "-q")
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


def test_a_folder_takes_adversarial_images_under_their_usual_name(gmmc: Gmmc, right: tuple[str, ...]) -> None:
    result = gmmc("attack", "fgsm", *SHORT["fgsm"], "--save", ".", *right, "-q")
    assert result.stdout.splitlines()[-1] == "adversarial.npz"
    assert Path("adversarial.npz").is_file()


def test_where_nothing_is_right_accuracy_is_0_and_the_smallest_change_a_sentence(gmmc: Gmmc, ask: Ask, wrong: tuple[str, ...]) -> None:
    for verb in BOUNDED:
        values = ask(verb, *SHORT[verb], *wrong)["values"]
        assert values["clean_accuracy"] == values["eps"]["8/255"]["accuracy"] == 0.0
    assert ask("audit", *wrong)["values"]["worst_case"]["8/255"]["accuracy"] == 0.0
    result = gmmc("attack", "cw", *wrong, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    sentence, hint = result.stderr.splitlines()
    assert "classifies none of these 8 images correctly" in sentence
    assert hint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pgd", "--loss", "logits"), "no attack loss 'logits'"),
        (("fgsm", "--loss", "dlr-targeted"), "loss dlr-targeted compares 4 logits, and this run has 3 classes"),
        (("pgd", "--loss", "dlr-targeted"), "use --loss margin"),
        (("apgd", "--loss", "dlr-targeted"), "loss dlr-targeted compares 4 logits"),
        (("pgd", "--eps", "x"), "eps 'x' is no number"),
        (("fgsm", "--eps", "1/0"), "write 8/255, 0.031 or 4/255,8/255"),
        (("apgd", "--eps", "-1"), "eps -1 is not a radius"),
        (("square", "--eps", "8"), "did you mean 8/255?"),
        (("pgd", "--step-size", 0), "--step-size 0.0 must be positive"),
        (("pgd", "--scale", 0), "--scale 0.0 must be positive"),
        (("square", "--scale", -1), "--scale -1.0 must be positive"),
        (("cw", "--out", "x.svg"), "a grid of images cannot be a .svg"),
        (("audit", "--data", "digits"), "digits has 10 classes"),
    ],
)
def test_invalid_options_exit_2_in_one_sentence(words: tuple[object, ...], message: str, gmmc: Gmmc, run: Run) -> None:
    result = gmmc("attack", *words, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    sentence, *hint = result.stderr.splitlines()
    assert sentence.startswith("gmmc: error: ")
    assert len(hint) <= 1
    assert message in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("fgsm", "--norm", "l2"),
        ("fgsm", "--steps", 2),
        ("pgd", "--steps", 0),
        ("pgd", "--restarts", 0),
        ("pgd", "--norm", "l1"),
        ("square", "--queries", 0),
        ("square", "--loss", "ce"),
        ("cw", "--aim", "nearest"),
        ("cw", "--searches", 0),
        ("cw", "--eps", "8/255"),
        ("audit", "--eps", "8/255"),
        ("audit", "--n", 1),
    ],
)
def test_wrong_usage_exits_2(words: tuple[object, ...], gmmc: Gmmc, run: Run) -> None:
    result = gmmc("attack", *words)
    assert (result.exit_code, result.stdout) == (2, "")


def test_without_a_run_there_is_nothing_to_attack(gmmc: Gmmc, tmp_path: Path) -> None:
    result = gmmc("attack", "pgd", "--runs-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "train one first" in result.stderr


def test_an_unfinished_run_without_a_variance_can_be_attacked(ask: Ask, run: Run) -> None:
    old = run.checkpoint()
    header = old.metadata("model") | {"gamma2": "null"}
    Checkpoint.save(run.path / "checkpoints", old.step, {"model": Part(old.tensors("model"), header)}, old.progress)
    assert run.card().gamma2 is None
    for verb in ("pgd", "cw", "audit"):
        ask(verb, *SHORT[verb], "--n", 6)


def test_an_audit_ends_with_the_sentence_to_quote_and_its_pictures(gmmc: Gmmc, run: Run) -> None:
    result = gmmc("attack", "audit", "--n", 10, "-q")
    assert result.exit_code == 0, result.stderr
    saved = run.result("attack audit n10")
    assert saved is not None
    words = " ".join(result.stdout.split())
    assert saved["values"]["sentence"] in words
    for verdict in saved["values"]["verdicts"]:
        assert f"{'FIRED' if verdict['fired'] else 'clear'} {verdict['name']}: {verdict['why']}" in words
        assert (f"gmmc: warning: {verdict['name']}" in result.stderr) == verdict["fired"]
    paths = [Path(line) for line in result.stdout.splitlines() if line.endswith((".png", ".svg"))]
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert all(path.stat().st_size for path in paths)
    assert saved["protocol"]["left_out"] == ["pgd-dlr-targeted"]


def test_an_interrupted_audit_exits_130_and_goes_on_where_it_stopped(
    gmmc: Gmmc, ask: Ask, run: Run, right: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = ask("audit", *right)
    done: list[str] = []
    limit = 2

    def limited(attack: Attack, *more: Any) -> Any:
        if len(done) == limit:
            raise KeyboardInterrupt
        done.append(attack.name)
        return over_eps(attack, *more)

    monkeypatch.setattr(auditing, "over_eps", limited)
    result = gmmc("attack", "audit", *right, "--json")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.splitlines()[-1] == "gmmc: stopped"
    limit = 9
    assert ask("audit", *right) == undisturbed
    assert done == ["pgd-ce", "pgd-margin", "square", "pgd-margin"]


def test_an_audit_may_transfer_from_another_run(ask: Ask, run: Run) -> None:
    other = Run(Path(shutil.copytree(run.path, Path("runs") / "other")))
    document = ask("audit", "--run", run.path, "--transfer", "other", "--n", 6)
    assert document["run"] == run.id
    assert document["protocol"]["transfer_from"] == other.id
    assert list(document["values"]["attacks"]["transfer"]) == ["4/255", "8/255"]


def test_nothing_transfers_from_images_of_another_size(gmmc: Gmmc, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run.path, Path("runs") / "other")
    honest = options.opened

    def another_size(name: str | None, *more: Any, **asked: Any) -> Any:
        subject = honest(name, *more, **asked)
        return subject if name != "other" else replace(subject, card=replace(subject.card, image_shape=(1, 16, 16)))

    monkeypatch.setattr(options, "opened", another_size)
    result = gmmc("attack", "audit", "--run", run.path, "--transfer", "other", "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"run other takes images of another size than {run.id}" in result.stderr


@pytest.fixture
def momentum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The attack of docs/extending.md, installed."""
    install_example("An attack", tmp_path, monkeypatch)
    yield
    installed.cache_clear()


@pytest.mark.usefixtures("momentum")
def test_an_installed_attack_is_a_command_and_a_row_of_the_report(gmmc: Gmmc, ask: Ask, run: Run, right: tuple[str, ...]) -> None:
    values = ask("mi-fgsm", "--eps", "8/255,1", *right)["values"]["eps"]
    fgsm = ask("fgsm", "--loss", "margin", "--eps", "1", *right)["values"]["eps"]
    assert values["1"]["accuracy"] <= fgsm["1"]["accuracy"] <= 1.0
    result = ask("mi-fgsm", "--steps", "3")
    assert (result["command"], result["protocol"]["steps"], result["protocol"]["loss"]) == ("attack mi-fgsm", 3, "margin")
    assert gmmc("eval", "accuracy", "--quiet").exit_code == 0
    report = gmmc("report", "--run", run.path)
    assert "8/255, mi-fgsm on margin" in " ".join(report.stdout.split()), report.stdout


@pytest.mark.usefixtures("momentum")
def test_an_installed_attack_is_listed_without_being_imported(gmmc: Gmmc) -> None:
    sys.modules.pop("my_attack", None)
    assert "mi-fgsm" in gmmc("attack", "--help").stdout
    assert "--step-size" in gmmc("attack", "mi-fgsm", "--help").stdout
    assert "my_attack" not in sys.modules


@pytest.mark.usefixtures("momentum")
def test_an_installed_attack_obeys_its_norms(gmmc: Gmmc, run: Run) -> None:
    result = gmmc("attack", "mi-fgsm", "--norm", "l2")
    assert (result.exit_code, "mi-fgsm has no l2 form" in result.stderr) == (2, True)


def test_an_attack_that_does_not_exist_is_said_to(gmmc: Gmmc) -> None:
    assert gmmc("attack", "mi-fgsm").exit_code == 2


ODD = """
from gmmcli.attacks.attack import Attack
from gmmcli.attacks.losses import AttackLoss, margin


class Still:
    '''Returns the images as they are; its defaults are a copy of PGD's.'''

    defaults = Attack("pgd", "margin", "l2", steps=2)
    norms = ("l2",)

    def __call__(self, attack, model, state, pixels, eps, streams):
        return pixels


still, nothing = Still(), 3
twice = AttackLoss(lambda logits, labels, targets: 2 * margin(logits, labels, targets), about="twice the margin")
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that adds an attack, a loss, and parts that are neither."""
    attacks = {"still": "odd_attack:still", "a-class": "odd_attack:Still", "nothing": "odd_attack:nothing"}
    losses = {"twice": "odd_attack:twice", "number": "odd_attack:nothing"}
    install(tmp_path, monkeypatch, {"odd_attack": ODD}, {"attacks": attacks, "attack_losses": losses})
    yield
    installed.cache_clear()


@pytest.mark.usefixtures("odd")
def test_an_installed_attack_runs_under_its_own_name_and_the_default_radius_of_its_norm(ask: Ask, run: Run, right: tuple[str, ...]) -> None:
    result = ask("still", *right)
    assert (result["command"], result["protocol"]["kind"]) == ("attack still", "still")
    assert {eps: row["accuracy"] for eps, row in result["values"]["eps"].items()} == {"0.5": 1.0}  # PGD would break some
    assert [stem for stem in run.results() if stem.startswith("attack")] == ["attack-still-own.npz-test"]


@pytest.mark.usefixtures("odd")
def test_an_installed_loss_is_one_that_attacks_maximise(ask: Ask, right: tuple[str, ...]) -> None:
    words = ("pgd", "--steps", 3, "--eps", "8/255,64/255", *right)
    twice, margin = ask(*words, "--loss", "twice"), ask(*words, "--loss", "margin")
    assert twice["protocol"]["loss_is"] == "twice the margin"
    assert margin["values"]["eps"]["64/255"]["accuracy"] < 1.0 and twice["values"]["eps"]["64/255"]["accuracy"] < 1.0


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "adds 'nothing' to gmmcli's attacks, which is no Algorithm"),
        (("a-class",), "adds 'a-class' to gmmcli's attacks, which is no Algorithm"),
        (("pgd", "--loss", "number"), "adds 'number' to gmmcli's attack_losses, which is no AttackLoss"),
    ],
)
def test_an_installed_part_of_another_kind_is_refused_in_one_sentence(words: tuple[str, ...], message: str, gmmc: Gmmc, run: Run) -> None:
    result = gmmc("attack", *words, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr.splitlines()[0]
