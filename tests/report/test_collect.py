import json
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten import DIS, GEN, SOFTMAX, attacked, audited, calibrated, detected, save, scored, write

from gmmcli.attacks.attack import Attack
from gmmcli.errors import RunError
from gmmcli.evaluate import classification, detection
from gmmcli.evaluate.generation import Generation, generate
from gmmcli.evaluate.robustness import robust_accuracy
from gmmcli.evaluate.samples import Draw
from gmmcli.evaluate.subject import Subject
from gmmcli.metrics.features.spaces import pixel_space
from gmmcli.metrics.judge import PixelJudge
from gmmcli.metrics.metric import Estimate
from gmmcli.recipe import Recipe, shipped
from gmmcli.report.catalogue import FINISHED, Protocol, Quantity
from gmmcli.report.collect import ModelRuns, common_detection, comparable_results, differing, family, gather, run_estimates
from gmmcli.report.summary import Summary
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


def everything(run: Run) -> dict[Quantity, Estimate]:
    return run_estimates(run, comparable_results(run))


def summary(model: ModelRuns, key: str) -> Summary:
    """The one summary of this key."""
    (metric,) = {metric for found in model.estimates for metric in found if metric.key == key}
    found = model.summary(metric)
    assert found is not None
    return found


def plain(run: Run) -> dict[str, float]:
    """All but what every run that ended has."""
    return {key: value for key, value in figures(run).items() if key not in ("ended", "minutes", "accuracy", "nll", "brier")}


@pytest.mark.usefixtures("undrawn")
def test_what_the_evaluations_really_save_is_understood(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, calibrate = classification.accuracy(subject), classification.calibrate(subject)
    monkeypatch.setattr(detection, "default_sets", lambda *about: ["uniform", "npz:gone.npz"])  # one of them is missing
    ood = detection.ood(subject)
    samples = generate(subject, Generation(pixel_space(), PixelJudge(subject.dataset.train, 1), Draw("buffer")))
    attack = robust_accuracy(subject, Attack("pgd", "margin", steps=1), [4 / 255, 8 / 255])
    values = [one.result["values"] for one in (accuracy, calibrate, ood, samples, attack)]
    found = figures(subject.run)
    assert found == {
        **{key: values[0][key] for key in ("accuracy", "calibrated_nll", "calibrated_brier", "nll", "brier")},
        "ece": values[1]["ece"],
        "ece temperature": values[1]["variants"]["temperature"]["ece"],
        "ece chosen": found["ece chosen"],
        **{f"ood uniform {score}": values[2]["uniform"][score]["auroc"] for score in ("log_px", "max_py", "mass", "max_logit", "energy")},
        **{key: values[3][key] for key in ("label_agreement", "precision", "recall", "coverage")},
        "feature_fid": values[3]["feature_fid"],
        **{f"pgd-margin-linf {eps}/255": values[4]["eps"][f"{eps}/255"]["accuracy"] for eps in (4, 8)},
        "ended": 1.0,
        "minutes": subject.run.provenance["wall_time_s"] / 60,
    }
    by_key = {metric.key: figure for metric, figure in everything(subject.run).items()}
    assert by_key["accuracy"].ci95 == tuple(values[0]["ci95"])
    assert by_key["ece temperature"].ci95 == tuple(values[1]["variants"]["temperature"]["ece_ci95"])
    assert by_key["pgd-margin-linf 8/255"].ci95 == tuple(values[4]["eps"]["8/255"]["ci95"])
    assert by_key["precision"].ci95 == tuple(values[3]["precision_ci95"])
    protocols = {metric.key: dict(metric.protocol.facts) for metric in everything(subject.run)}
    assert protocols["accuracy"] == {"dataset": subject.dataset.title, "split": "test", "n": "120"}
    assert {key: protocols["precision"][key] for key in ("n", "from", "space", "reference")} == {
        **{"n": str(samples.result["n"]), "from": "buffer", "space": "pixels"},
        "reference": f"{subject.dataset.title} train",
    }
    assert (protocols["ood uniform mass"]["set n"], protocols["ood uniform mass"]["n"]) == ("120", "120")
    assert {key: protocols["pgd-margin-linf 8/255"][key] for key in ("n", "steps", "restarts")} == {
        "n": "120",
        "steps": "1",
        "restarts": "1",
    }


def test_a_run_that_ended_without_a_result_has_its_time_and_that_it_ended(tmp_path: Path) -> None:
    assert figures(write(tmp_path)) == {"ended": 1.0, "minutes": 1.5}
    assert figures(write(tmp_path, status="diverged")) == {"ended": 0.0}
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


def test_detection_leaves_out_missing_sets(tmp_path: Path) -> None:
    run = detected(scored(write(tmp_path), 0.9), svhn={"log_px": 0.9, "max_py": 0.8}, interp={"log_px": 0.6, "distance": 0.1})
    path = run.path / "results" / "eval-ood.json"
    result = json.loads(path.read_text())
    result["values"] |= {"celeba": {"missing": "it is not here", "hint": ""}, "npz:some/where/faces.npz": {"mass": {"auroc": 0.5}}}
    path.write_text(json.dumps(result))
    assert plain(run) == {
        "ood svhn log_px": 0.9,
        "ood svhn max_py": 0.8,
        "ood interp log_px": 0.6,
        "ood interp distance": 0.1,
        "ood faces.npz mass": 0.5,
    }


def test_attacks_count_by_their_radii_and_one_on_cross_entropy_makes_nobody_best(tmp_path: Path) -> None:
    run = audited(scored(write(tmp_path), 0.9), at1=0.5, at8=0.25)
    attacked(attacked(run, "pgd", "ce", at8=0.75), "apgd", "dlr", at8=0.3)
    attacked(run, "pgd", "ce", at4=0.8)
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
    assert comparable_results(run).keys() == {"eval-accuracy", "eval-calibrate"}
    assert figures(run)["accuracy"] == 0.9


def test_results_of_a_run_that_was_never_tested_do_not_count(tmp_path: Path) -> None:
    assert comparable_results(calibrated(write(tmp_path), 0.1, 0.1)) == {}


@pytest.mark.parametrize("stems", [("tsne", "tsne-n50", "tsne-n9"), ("z", "tsne-n50", "a")])
def test_of_several_results_the_one_of_most_images_is_drawn(stems: tuple[str, str, str], tmp_path: Path) -> None:
    run = scored(write(tmp_path), 0.9)
    for n, stem in zip((100, 50, 9), stems, strict=True):
        save(run, "tsne", {"knn_accuracy": n / 100}, stem, n=n)
    (model,) = gather([run])
    found = model.result("tsne")
    assert found is not None
    assert (found[1]["n"], found[1]["values"]["knn_accuracy"], found[1]["stem"]) == (100, 1.0, stems[0])


def test_the_parts_of_eval_all_count_once(tmp_path: Path) -> None:
    run = scored(write(tmp_path), 0.9)
    save(run, "eval all", {"accuracy": {"accuracy": 0.9}})
    assert comparable_results(run).keys() == {"eval-accuracy"}


def test_results_that_differ_in_their_protocol_stand_beside_each_other(tmp_path: Path) -> None:
    run = audited(scored(write(tmp_path), 0.9), at8=0.5)
    save(run, "attack audit", {"worst_case": {"8/255": {"accuracy": 0.25, "ci95": [0.2, 0.3]}}}, "attack audit n500", n=500)
    worst = {dict(metric.protocol.facts)["n"]: figure.value for metric, figure in everything(run).items() if metric.key == "worst 8/255"}
    assert worst == {"50": 0.5, "500": 0.25}


def on(name: str, n: int = 100, score: str = "log_px") -> Quantity:
    """The AUROC against a set."""
    facts = (("dataset", "digits"), ("split", "test"), ("n", str(n)), ("set", name))
    return Quantity(f"ood {name} {score}", "", "Out of distribution (AUROC)", protocol=Protocol(facts))


def test_the_mean_over_sets_takes_those_alone_that_all_runs_have_alike() -> None:
    one = {on("interp"): Estimate(0.5, (0.4, 0.6)), on("svhn"): Estimate(1.0, (0.9, 1.0)), on("noise", score="mass"): Estimate(0.0)}
    other = {on("noise"): Estimate(1.0), on("interp"): Estimate(0.7, (0.6, 0.9)), on("svhn"): Estimate(0.8, (0.7, 0.9))}
    few = {on("noise", n=9): Estimate(0.25), on("interp", n=9): Estimate(0.75, (0.7, 0.8))}
    means = [next(iter(found.items()), None) for found in common_detection([one, other, {}, few])]
    assert [found and (dict(found[0].protocol.facts)["over"], found[1].value) for found in means] == [
        ("interp, svhn", 0.75),
        ("interp, svhn", 0.75),
        None,
        ("noise, interp", 0.5),  # other test images: a mean by itself
    ]
    assert means[0] is not None
    assert means[1] is not None
    assert means[3] is not None
    assert means[0][1].ci95 == pytest.approx((0.65, 0.8))
    assert means[0][0] == means[1][0] != means[3][0]
    assert means[3][1].ci95 is None  # one of its sets has none


def test_sets_that_no_two_runs_share_have_no_mean() -> None:
    assert common_detection([{on("interp"): Estimate(0.5)}, {on("svhn"): Estimate(0.5)}]) == [{}, {}]


def test_a_model_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    accuracies, within = [0.9, 0.8, 0.95], [0.1, 0.02, 0.03]
    runs = [scored(write(tmp_path, seed=seed), *known) for seed, known in enumerate(zip(accuracies, within, strict=True))]
    (model,) = gather(runs)
    found = summary(model, "accuracy")
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.std == pytest.approx(np.std(accuracies, ddof=1))
    assert (found.n_seeds, found.over) == (3, "seeds and images")
    assert model.summary(Quantity("ece", "", "")) is None


def test_a_figure_that_some_seeds_lack_is_the_mean_of_the_others(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, seed=1), 0.9), calibrated(scored(write(tmp_path, seed=2), 0.8), 0.1, 0.1)]
    (model,) = gather(runs)
    assert summary(model, "ece") == (0.1, None, 1, (0.05, 0.2), "images")
    found = model.result("eval calibrate")
    assert found is not None
    assert found[0] is runs[1]
    assert model.result("tsne") is None


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
    assert [found[FINISHED].value for found in model.estimates] == [1.0, 0.0]
    ended = summary(model, "ended")
    assert ended.interval == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson's, of one in two
    assert (ended.mean, ended.std, ended.n_seeds, ended.over) == (0.5, None, 2, "trainings")


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


def test_a_run_named_twice_and_a_seed_trained_again_are_no_other_seeds(tmp_path: Path) -> None:
    first, again, other = write(tmp_path, seed=1), write(tmp_path, seed=1), write(tmp_path, seed=2)
    (model,) = gather([first, other, again, Run(other.path)])
    assert [run.id for run in model.runs] == [again.id, other.id]


def test_a_result_without_what_it_is_about_and_a_time_that_is_none_are_passed_over(tmp_path: Path) -> None:
    run = write(tmp_path)
    run.describe(wall_time_s="long")
    assert figures(run) == {"ended": 1.0}
    run.save_result({"command": "eval accuracy", "values": {}})
    run.save_result({"command": "eval ood", "dataset": "digits", "step": 3, "values": {}})
    assert comparable_results(run) == {}
