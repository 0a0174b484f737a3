import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten import DIS, GEN, SOFTMAX, attacked, audited, calibrated, detected, save, scored, write

from gmmcli.errors import RunError
from gmmcli.evaluate.attacks import Attack
from gmmcli.evaluate.judge import PixelJudge
from gmmcli.evaluate.samples import Draw
from gmmcli.evaluate.spaces import pixel_space
from gmmcli.evaluate.subject import Subject
from gmmcli.recipe import Recipe, shipped
from gmmcli.report import measure
from gmmcli.report.collect import (
    ACCURACY,
    ECE,
    ENDED,
    MINUTES,
    Figure,
    Metric,
    Model,
    Summary,
    differing,
    family,
    gather,
    measured,
    of_the_run,
    rows,
)
from gmmcli.report.generate import Generation, generate
from gmmcli.report.robustness import bounded
from gmmcli.run import Run

FAMILIES = {
    "softmax": "softmax",
    "softmax_bn": "softmax-bn",
    "jem": "jem",
    "jem_joint": "jem-joint",
    "igebm": "igebm",
    "dis": "gmmc-dis",
    "gen": "gmmc-gen",
    "gen_injected": "gmmc-injected",
    "joint": "gmmc-joint",
}


def figures(run: Run) -> dict[str, float]:
    return {metric.key: figure.value for metric, figure in everything(run).items()}


def everything(run: Run) -> dict[Metric, Figure]:
    return measured(run, of_the_run(run))


def plain(run: Run) -> dict[str, float]:
    """All but what every run that ended has."""
    return {key: value for key, value in figures(run).items() if key not in ("ended", "minutes", "accuracy", "nll", "brier")}


@pytest.mark.usefixtures("undrawn")
def test_what_the_evaluations_really_save_is_understood(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, calibrate = measure.accuracy(subject), measure.calibrate(subject)
    ood = measure.ood(subject, ["uniform", "npz:gone.npz"])
    samples = generate(subject, Generation(pixel_space(), PixelJudge(subject.dataset.train, 1), Draw("buffer")))
    attack = bounded(subject, Attack("pgd", "margin", steps=1), [4 / 255, 8 / 255])
    values = [one.result["values"] for one in (accuracy, calibrate, ood, samples, attack)]
    found = figures(subject.run)
    assert found == {
        **{key: values[0][key] for key in ("accuracy", "nll", "brier")},
        "ece": values[1]["ece"],
        "ece temperature": values[1]["variants"]["temperature"]["ece"],
        "ece chosen": found["ece chosen"],
        "ood mean": values[2]["uniform"]["log_px"]["auroc"],
        **{f"ood uniform {score}": values[2]["uniform"][score]["auroc"] for score in ("log_px", "max_py", "mass")},
        **{key: values[3][key] for key in ("label_agreement", "precision", "recall", "coverage")},
        "feature_fid pixels": values[3]["feature_fid"],
        **{f"pgd-margin-linf {eps}/255": values[4]["eps"][f"{eps}/255"]["accuracy"] for eps in (4, 8)},
        "ended": 1.0,
        "minutes": subject.run.provenance["wall_time_s"] / 60,
    }
    by_key = {metric.key: figure for metric, figure in everything(subject.run).items()}
    assert by_key["accuracy"].ci95 == tuple(values[0]["ci95"])
    assert by_key["ece temperature"].ci95 == tuple(values[1]["variants"]["temperature"]["ece_ci95"])
    assert by_key["pgd-margin-linf 8/255"].ci95 == tuple(values[4]["eps"]["8/255"]["ci95"])
    assert by_key["precision"].ci95 == tuple(values[3]["precision_ci95"])


def test_a_run_that_ended_without_a_result_has_its_time_and_that_it_ended(tmp_path: Path) -> None:
    assert everything(write(tmp_path)) == {ENDED: (1.0, None), MINUTES: (1.5, None)}
    assert everything(write(tmp_path, status="diverged")) == {ENDED: (0.0, None)}
    assert everything(write(tmp_path, status="running")) == {}


def test_rollbacks_are_counted_where_there_were_any(tmp_path: Path) -> None:
    run = write(tmp_path)
    for line in ({"step": 3, "event": "rollback"}, {"step": 3, "loss": 1.0}, {"step": 9, "event": "rollback"}):
        run.log(line)
    assert plain(run) == {"rollbacks": 2}


@pytest.mark.parametrize(("validation", "chosen"), [((0.02, 0.01), 0.3), ((0.01, 0.02), 0.1), ((0.01, 0.01), 0.1)])
def test_the_scale_is_chosen_on_the_validation_images(validation: tuple[float, float], chosen: float, tmp_path: Path) -> None:
    run = calibrated(scored(write(tmp_path), 0.9), 0.1, 0.3, validation)
    assert plain(run) == {"ece": 0.1, "ece temperature": 0.3, "ece chosen": chosen}


def test_results_from_before_there_was_such_a_choice_are_those_of_gamma(tmp_path: Path) -> None:
    run = calibrated(scored(write(tmp_path), 0.9), 0.3, 0.1)
    path = run.path / "results" / "eval-calibrate.json"
    path.write_text(path.read_text().replace("validation_ece", "something_else"))
    assert plain(run)["ece chosen"] == 0.3


def test_detection_leaves_out_missing_sets_and_is_averaged_over_the_others(tmp_path: Path) -> None:
    run = detected(scored(write(tmp_path), 0.9), svhn={"log_px": 0.9, "max_py": 0.8}, interp={"log_px": 0.6, "distance": 0.1})
    path = run.path / "results" / "eval-ood.json"
    result = json.loads(path.read_text())
    result["values"] |= {"celeba": {"missing": "it is not here", "hint": ""}, "npz:some/where/faces.npz": {"mass": {"auroc": 0.5}}}
    path.write_text(json.dumps(result))
    assert plain(run) == {
        "ood mean": 0.75,
        "ood svhn log_px": 0.9,
        "ood interp log_px": 0.6,
        "ood svhn max_py": 0.8,
        "ood faces.npz mass": 0.5,
    }


def test_attacks_count_by_their_radii_and_one_on_cross_entropy_makes_nobody_best(tmp_path: Path) -> None:
    run = audited(scored(write(tmp_path), 0.9), at1=0.5, at8=0.25)
    attacked(attacked(run, "pgd", "ce", at8=0.75), "apgd", "dlr", at8=0.3)
    attacked(attacked(run, "pgd", "ce", at4=0.8), "pgd", "ce", steps=9, at8=0.85)  # the weaker one of two does not count
    save(run, "attack cw", {"l2_mean": 1.5})
    assert plain(run) == {
        **{"worst 1/255": 0.5, "worst 8/255": 0.25, "pgd 4/255": 0.8, "pgd 8/255": 0.75},
        **{"apgd-dlr-linf 8/255": 0.3, "cw": 1.5},
    }
    better = {metric.key: metric.better for metric in everything(run)}
    assert (better["pgd 8/255"], better["apgd-dlr-linf 8/255"], better["worst 8/255"], better["cw"]) == ("", "high", "high", "high")


@pytest.mark.parametrize("value", [None, inf])
def test_what_could_not_be_measured_is_left_out(value: float | None, tmp_path: Path) -> None:
    run = scored(write(tmp_path), 0.9)
    save(run, "attack cw", {"l2_mean": value})
    assert plain(run) == {}


@pytest.mark.parametrize("about", [{"step": 5}, {"dataset": "mnist"}, {"split": "validation"}])
def test_results_about_other_weights_or_other_images_do_not_count(about: dict[str, Any], tmp_path: Path) -> None:
    run = calibrated(scored(write(tmp_path), 0.9), 0.1, 0.1)
    save(run, "tsne", {"knn_accuracy": 0.5}, "tsne other", **about, n=1000)
    save(run, "eval accuracy", {"accuracy": 0.1}, "eval accuracy other", **about, n=1000)
    assert of_the_run(run).keys() == {"eval accuracy", "eval calibrate"}
    assert figures(run)["accuracy"] == 0.9


def test_results_of_a_run_that_was_never_tested_do_not_count(tmp_path: Path) -> None:
    assert of_the_run(calibrated(write(tmp_path), 0.1, 0.1)) == {}


@pytest.mark.parametrize("stems", [("tsne", "tsne-n50", "tsne-n9"), ("z", "tsne-n50", "a")])
def test_of_several_results_the_one_of_most_images_counts(stems: tuple[str, str, str], tmp_path: Path) -> None:
    run = scored(write(tmp_path), 0.9)
    for n, stem in zip((100, 50, 9), stems, strict=True):
        save(run, "tsne", {"knn_accuracy": n / 100}, stem, n=n)
    found = of_the_run(run)["tsne"]
    assert (found["n"], found["values"]["knn_accuracy"], found["stem"]) == (100, 1.0, stems[0])


def test_a_model_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    accuracies, within = [0.9, 0.8, 0.95], [0.1, 0.02, 0.03]
    runs = [scored(write(tmp_path, seed=seed), *known) for seed, known in enumerate(zip(accuracies, within, strict=True))]
    (model,) = gather(runs)
    summary = model.summary(ACCURACY)
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean(accuracies))
    assert summary.std == pytest.approx(np.std(accuracies, ddof=1))
    assert summary.n_seeds == 3
    assert summary.ci95 == pytest.approx((np.subtract(accuracies, within).mean(), np.add(accuracies, within).mean()))
    assert model.summary(ECE) is None


def test_a_figure_that_some_seeds_lack_is_the_mean_of_the_others(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, seed=1), 0.9), calibrated(scored(write(tmp_path, seed=2), 0.8), 0.1, 0.1)]
    (model,) = gather(runs)
    assert model.summary(ECE) == (0.1, None, 1, (0.05, 0.2))
    found = model.result("eval calibrate")
    assert found is not None
    assert found[0] is runs[1]
    assert model.result("tsne") is None


@pytest.mark.parametrize(
    ("summary", "spread"),
    [
        (Summary(0.5, None, 1, None), (0.5, 0.5)),
        (Summary(0.5, None, 1, (0.4, 0.55)), (0.4, 0.55)),
        (Summary(0.5, 0.25, 2, None), (0.25, 0.75)),
        (Summary(0.5, 0.25, 2, (0.4, 0.9)), (0.25, 0.9)),
    ],
)
def test_a_spread_is_the_wider_of_deviation_and_interval(summary: Summary, spread: tuple[float, float]) -> None:
    assert summary.spread == spread


OF_ANOTHER_NAME = {
    "cifar10_joint_fast": "gmmc-joint",
    "cifar10_jempp": "jem",
    "cifar10_mebm": "jem",
    "cifar10_gmmcpp": "gmmc-gen",
    "cifar10_small_softmax": "softmax-bn",  # the network of all small ones
    "cifar10_small_jem": "jem-joint",
}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_of_the_family_that_its_name_says(name: str) -> None:
    kinds = [kind for kind in FAMILIES if name.endswith(f"_{kind}")]
    assert family(Recipe.load(name)) == (OF_ANOTHER_NAME.get(name) or FAMILIES[max(kinds, key=len)])


def test_runs_are_gathered_by_recipe_in_the_order_of_their_study(tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = [(GEN, 2, 1), (DIS, 1, 0), (GEN, 1, 1), (DIS, 3, 0)]
    runs = [scored(write(tmp_path, name, seed=seed, study_position=position), 0.5) for name, seed, position in asked]
    found = gather([*runs, write(tmp_path, SOFTMAX, status="running"), write(tmp_path, SOFTMAX, status="interrupted")])
    assert [(model.name, [run.recipe.seed for run in model.runs]) for model in found] == [(DIS, [1, 3]), (GEN, [1, 2])]
    assert [model.family for model in found] == ["gmmc-dis", "gmmc-gen"]


def test_a_training_that_diverged_has_ended_too(tmp_path: Path) -> None:
    runs = [write(tmp_path, seed=1), write(tmp_path, seed=2, status="diverged")]
    (model,) = gather(runs)
    assert [figure.value for figure in model.figures[ENDED]] == [1.0, 0.0]
    summary = model.summary(ENDED)
    assert summary is not None
    assert summary.ci95 == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson's, of one in two
    assert (summary.mean, summary.std, summary.n_seeds) == (0.5, None, 2)


def test_nothing_that_has_ended_is_an_error(tmp_path: Path) -> None:
    for runs in ([], [write(tmp_path, status="running")]):
        with pytest.raises(RunError, match="none of these runs has ended"):
            gather(runs)


def test_namesakes_are_told_apart_by_what_differs_among_them(tmp_path: Path) -> None:
    overrides: list[tuple[str, ...]] = [("optim.learning_rate=0.5",), ("optim.learning_rate=0.25", "data.flip=true"), ()]
    runs = [scored(write(tmp_path, GEN if own else DIS, *own), 0.5) for own in overrides]
    assert [model.name for model in gather(runs)] == [
        f"{GEN}, flip False, learning_rate 0.5",
        f"{GEN}, flip True, learning_rate 0.25",
        DIS,
    ]


def test_the_studys_name_comes_before_the_recipes(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, GEN, study_model="ours"), 0.5), scored(write(tmp_path, DIS), 0.5)]
    assert [model.name for model in gather(runs)] == ["ours", DIS]


def test_what_differs_is_listed_with_the_value_of_each() -> None:
    recipes = [
        Recipe.load(GEN),
        Recipe.load(GEN, ["seed=7", "name=other", "optim.learning_rate=0.5", "optim.milestones=[3, 5]"]),
        Recipe.load(GEN, ["model.head.kind=lda"]),
    ]
    rate = recipes[0].optim.learning_rate
    assert differing(recipes) == {
        "model.head.kind": ["max-mahalanobis", "max-mahalanobis", "lda"],
        "optim.learning_rate": [rate, 0.5, rate],
        "optim.milestones": [[], [3, 5], []],
    }
    assert differing(recipes[:1]) == {}


def test_a_key_that_only_one_has_is_none_for_the_other() -> None:
    found = differing([Recipe.load(GEN), Recipe.load(GEN, ["stages.0.objective={ kind = 'center-regression' }"])])
    assert found["stages.0.objective.margin"] == [2.0, None]


def test_figures_come_group_by_group(tmp_path: Path) -> None:
    one, other = (scored(write(tmp_path, name), 0.5) for name in (GEN, DIS))
    everything: list[Callable[[Run], Run]] = [
        lambda run: attacked(run, "pgd", "margin", at8=0.5),
        lambda run: detected(run, interp={"log_px": 0.5}),
        lambda run: calibrated(run, 0.1, 0.1),
    ]
    for add in everything:
        add(other)
    groups = dict(rows([Model("one", (one,)), Model("other", (other,))]))
    assert list(groups) == [
        "Classification",
        "Calibration",
        "Out of distribution (AUROC)",
        "Robustness (accuracy under attack)",
        "Training",
    ]
    assert [metric.key for metric in groups["Classification"]] == ["accuracy", "nll", "brier"]
    assert all(metric.group == group for group, metrics in groups.items() for metric in metrics)


def test_a_run_named_twice_and_a_seed_trained_again_are_no_other_seeds(tmp_path: Path) -> None:
    first, again, other = write(tmp_path, seed=1), write(tmp_path, seed=1), write(tmp_path, seed=2)
    (model,) = gather([first, other, again, Run(other.path)])
    assert [run.id for run in model.runs] == [again.id, other.id]
