from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from handwritten import DIS, GEN, JEM, SOFTMAX, attacked, audited, calibrated, checkpoint, detected, models, save, scored, write

from gmmcli.report.catalogue import ACCURACY, Quantity
from gmmcli.report.claims import UNTESTED, claim_results
from gmmcli.report.collect import gather
from gmmcli.report.compare import Answer, Comparison, Line, Ranking, compare, rank
from gmmcli.report.summary import Summary
from gmmcli.report.text import markdown
from gmmcli.run import Run

LOSS = Quantity("loss", "loss", "", "low", "")
NEITHER = Quantity("pgd 8/255", "PGD", "", "")


def of(runs: Sequence[Run]) -> Comparison:
    return compare(gather(runs))


def line(runs: Sequence[Run], key: str) -> Line:
    return of(runs).lines[key][0]


def answer(runs: Sequence[Run], question: str) -> Answer:
    (found,) = [one for one in of(runs).answers if one.question == question]
    return found


def alone(mean: float, within: float = 0.0) -> Summary:
    """Known to this much either way."""
    return Summary(mean, None, 1, (mean - within, mean + within), "images")


def bare(mean: float) -> Summary:
    """Of which no interval is known."""
    return Summary(mean, None, 1, None, "")


@pytest.mark.parametrize(
    ("metric", "summaries", "expected"),
    [
        (ACCURACY, [alone(0.5), alone(0.75), alone(0.25)], (1, set(), {0, 2})),
        (LOSS, [alone(0.5), alone(0.75), alone(0.25)], (2, set(), {0, 1})),
        (ACCURACY, [None, alone(0.5), alone(0.75)], (2, set(), {1})),
        (ACCURACY, [alone(0.5), alone(0.5), alone(0.25)], (0, {1}, {2})),
        (ACCURACY, [alone(0.75, 0.05), alone(0.65, 0.05), alone(0.5, 0.09)], (0, {1}, {2})),  # at 0.7 they touch
        (ACCURACY, [alone(0.75, 0.05), alone(0.65, 0.04)], (0, set(), {1})),
        (ACCURACY, [bare(0.989), bare(0.988)], (0, {1}, set())),
        (ACCURACY, [bare(0.989), alone(0.5, 0.01)], (0, {1}, set())),
        (ACCURACY, [alone(0.9, 0.01), bare(0.1), alone(0.5, 0.01)], (0, {1}, {2})),
    ],
)
def test_best_is_who_is_ahead_of_all_intervals_and_without_one_nobody(
    metric: Quantity, summaries: list[Summary | None], expected: tuple[int, set[int], set[int]]
) -> None:
    first, level, behind = expected
    ranking = rank(metric, summaries)
    assert ranking == Ranking(first, frozenset(level), frozenset(behind))


@pytest.mark.parametrize(
    ("metric", "summaries"),
    [(NEITHER, [alone(0.5), alone(0.75)]), (ACCURACY, [alone(0.5)]), (ACCURACY, [None, alone(0.5), None]), (ACCURACY, [None, None])],
)
def test_what_cannot_be_ranked_is_not(metric: Quantity, summaries: list[Summary | None]) -> None:
    assert rank(metric, summaries) is None


@pytest.mark.parametrize(
    ("summaries", "best"),
    [
        ([alone(0.75, 0.05), alone(0.65, 0.05), alone(0.5, 0.09)], {0, 1}),
        ([alone(0.75, 0.05), alone(0.7, 0.05)], set()),  # nobody is behind
        ([alone(0.9, 0.01), bare(0.89), alone(0.5, 0.01)], {0}),
        ([bare(0.9), bare(0.1)], set()),
    ],
)
def test_bold_are_the_best_where_anybody_is_behind_and_never_a_figure_without_an_interval(
    summaries: list[Summary | None], best: set[int]
) -> None:
    assert Line.of(ACCURACY, "", summaries, []).best == best


def test_a_line_has_every_models_summary_the_best_and_the_papers_figures(tmp_path: Path) -> None:
    runs = [*models(tmp_path, gen=(0.9, 0.01), igebm=(0.5, 0.01), gen_injected=(0.895, 0.01)), write(tmp_path, DIS)]
    found = line(runs, "accuracy")
    assert [summary and summary.mean for summary in found.summaries] == [0.9, 0.5, 0.895, None]
    assert found.best == {0, 2}
    assert found.published == [0.9408, 0.491, None, 0.943]


@pytest.mark.parametrize(
    ("sources", "dataset"),
    [
        (["{ kind = 'svhn' }"] * 2, "svhn"),
        (["{ kind = 'digits' }"] * 2, "cifar10"),
        (["{ kind = 'svhn' }", "{ kind = 'cifar10' }"], "cifar10"),
    ],
)
def test_the_papers_figures_are_those_of_the_models_data_or_else_of_cifar10(sources: list[str], dataset: str, tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, GEN, f"data.source={source}", f"name=m{i}"), 0.5) for i, source in enumerate(sources)]
    assert of(runs).dataset == dataset
    assert line(runs, "accuracy").published == [{"svhn": 0.972, "cifar10": 0.9408}[dataset]] * 2


def test_the_groups_hold_every_figure_once(tmp_path: Path) -> None:
    runs = [calibrated(run, 0.1, 0.2) for run in models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))]
    keys = [line.quantity.key for _, lines in of(runs).groups for line in lines]
    assert keys == ["accuracy", "nll", "brier", "ece", "ece temperature", "ece chosen", "ended", "minutes"]


def test_questions_that_can_be_answered_are_and_all_that_may_be_as_good_are_named(tmp_path: Path) -> None:
    gen, dis, softmax = models(tmp_path, gen=(0.9, 0.01), dis=(0.885, 0.01), softmax=(0.5, 0.1))
    calibrated(gen, 0.3, 0.1, (0.3, 0.1))
    calibrated(dis, 0.02, 0.5)
    calibrated(softmax, 0.5, 0.5)
    detected(gen, interp={"log_px": 0.5})  # one alone is not better than anyone
    audited(audited(gen, at8=0.25), at1=0.9, at8=0.25)
    audited(dis, at1=0.5, at8=0.125)
    answers = {
        one.question: (one.line.key, one.decided, one.model.name, [model.name for model in one.tied])
        for one in of([gen, dis, softmax]).answers
    }
    assert answers == {
        "Which classifies best?": ("accuracy", False, GEN, [DIS]),
        "Which is best calibrated?": ("ece chosen", True, DIS, []),
        "Which is most robust?": ("worst 8/255", True, GEN, []),
        "Which trains fastest?": ("minutes", False, GEN, [DIS, SOFTMAX]),
    }


def test_intervals_that_overlap_make_no_champion(tmp_path: Path) -> None:
    gen, softmax = models(tmp_path, gen=(0.9, 0.01), softmax=(0.5, 0.01))
    for run, worst, interval in ((gen, 0.98, [0.93, 0.994]), (softmax, 0.97, [0.915, 0.99])):
        save(run, "attack audit", {"worst_case": {"8/255": {"accuracy": worst, "ci95": interval}}})
    found = answer([gen, softmax], "Which is most robust?")
    assert (found.decided, found.reason, [model.name for model in found.tied]) == (False, "the intervals overlap", [SOFTMAX])
    text = markdown(of([gen, softmax]), "title")
    assert "| Which is most robust? | **undecided** | digits_gen, 8/255, worst case: 98.0% (93.0% to 99.4%)" in text
    assert "**98.0%" not in text


def test_a_figure_without_an_interval_wins_nothing(tmp_path: Path) -> None:
    """13.5% once beat 13.2%, and 0.989 beat 0.988, with "may be as good: none"."""
    gen, jem = models(tmp_path, gen=(0.9, 0.01), jem=(0.9, 0.01))
    for run, coverage in ((gen, 0.135), (jem, 0.132)):
        save(run, "eval generate", {"coverage": coverage}, n=640)
    found = answer([gen, jem], "Whose samples cover the real images best?")
    assert (found.decided, found.reason) == (False, f"no interval for {GEN}, {JEM}")
    assert found.line.best == set()


def test_how_long_a_models_chains_are_is_the_models_affair(tmp_path: Path) -> None:
    gen, jem = models(tmp_path, gen=(0.9, 0.01), jem=(0.9, 0.01))
    longer = {"protocol": {"samples": {"from": "noise", "steps": 400}}}
    (row,) = of([sampled(gen, 0.9), sampled(jem, 0.5, **longer)]).lines["coverage"]
    assert [summary and summary.mean for summary in row.summaries] == [0.9, 0.5]


def sampled(run: Run, coverage: float, name: str = "", **about: Any) -> Run:
    """The run with its samples' coverage, known to a point either way."""
    protocol = {"space": "pixels", "reference": "digits test", "samples": {"from": "noise", "steps": 5}} | about.pop("protocol", {})
    save(
        run, "eval generate", {"coverage": coverage, "coverage_ci95": [coverage - 0.01, coverage + 0.01]}, name, protocol=protocol, **about
    )
    return run


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"protocol": {"space": "pixels"}}, {"protocol": {"space": "efficientnet-lite0"}}, ["space pixels", "space efficientnet-lite0"]),
        ({"protocol": {"samples": {"from": "buffer"}}}, {}, ["from buffer", "from noise"]),
        ({"protocol": {"reference": "digits train"}}, {}, ["reference digits train", "reference digits test"]),
        ({"n": 640}, {"n": 10_000}, ["n 640", "n 10,000"]),
        (
            {"protocol": {"filter": "the most confident 10%"}},
            {"protocol": {"filter": "none"}},
            ["filter the most confident 10%", "filter none"],
        ),
    ],
)
def test_samples_that_were_measured_unlike_are_two_rows_and_nobody_wins(
    one: dict[str, Any], other: dict[str, Any], told: list[str], tmp_path: Path
) -> None:
    gen, jem = models(tmp_path, gen=(0.9, 0.01), jem=(0.9, 0.01))
    comparison = of([sampled(gen, 0.9, **one), sampled(jem, 0.5, **other)])
    rows = comparison.lines["coverage"]
    assert [(row.facts, [summary and summary.mean for summary in row.summaries]) for row in rows] == [
        (told[0], [0.9, None]),
        (told[1], [None, 0.5]),
    ]
    assert all(row.ranking is None for row in rows)
    assert "Whose samples cover the real images best?" not in [one.question for one in comparison.answers]
    assert comparison.left_out == [f"coverage: measured under 2 protocols, one row each ({told[0]}: {GEN}; {told[1]}: {JEM})"]
    (verdict,) = [one for one in claim_results(comparison) if one.claim.text == "... and cover the real images as well"]
    assert (verdict.verdict, verdict.measured) == (UNTESTED, f"measured differently: {told[0]} against {told[1]}")


def test_what_one_model_alone_has_in_two_ways_is_kept_from_no_comparison(tmp_path: Path) -> None:
    gen, softmax = models(tmp_path, gen=(0.9, 0.01), softmax=(0.9, 0.01))
    comparison = of([sampled(sampled(gen, 0.9), 0.8, "few", n=9), softmax])
    assert [row.facts for row in comparison.lines["coverage"]] == ["n 100", "n 9"]
    assert comparison.left_out == []


def test_worst_cases_of_unlike_numbers_of_images_are_two_rows_and_what_is_alike_is_compared(tmp_path: Path) -> None:
    gen, softmax = models(tmp_path, gen=(0.9, 0.01), softmax=(0.9, 0.01))
    worst = {
        n: {"worst_case": {"8/255": {"accuracy": accuracy, "ci95": [accuracy, accuracy]}}} for n, accuracy in ((100, 0.25), (500, 0.75))
    }
    save(gen, "attack audit", worst[500], n=500)
    save(softmax, "attack audit", worst[100], n=100)
    comparison = of([gen, softmax])
    assert [row.label for row in comparison.lines["worst 8/255"]] == ["8/255, worst case, n 500", "8/255, worst case, n 100"]
    assert comparison.answers[-1].question != "Which is most robust?"
    save(gen, "attack audit", worst[100], "attack audit n100", n=100)
    first, second = of([gen, softmax]).lines["worst 8/255"]
    assert (first.facts, first.measured, second.facts, second.measured) == ("n 100", [0, 1], "n 500", [0])


def test_a_mean_over_other_sets_is_not_compared_with_that_over_fewer(tmp_path: Path) -> None:
    """eval all on both, then eval ood with more sets on one: the mean over three sets was compared with that over others."""
    gen, softmax = models(tmp_path, gen=(0.9, 0.01), softmax=(0.9, 0.01))
    for run, interp, uniform in ((gen, 0.90, 0.97), (softmax, 0.93, 0.99)):
        detected(run, interp={"log_px": interp}, uniform={"log_px": uniform})
    more = {name: {"log_px": {"auroc": auroc, "auroc_ci95": [auroc, auroc]}} for name, auroc in (("svhn", 1.0), ("interp", 0.9))}
    save(gen, "eval ood", more, "eval ood svhn interp")
    comparison = of([gen, softmax])
    (mean,) = comparison.lines["ood mean"]
    assert mean.label == "mean AUROC of log p(x), over interp, uniform"
    assert [summary and round(summary.mean, 9) for summary in mean.summaries] == [0.935, 0.96]
    found = answer([gen, softmax], "Which detects out-of-distribution images best?")
    assert (found.decided, found.model.name) == (True, SOFTMAX)
    assert comparison.left_out == [f"log p(x) against svhn: measured for {GEN} only, so left out of the mean over sets"]


def test_one_score_asked_by_itself_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    """eval ood --score distance once removed all other figures of detection: its file comes first by the alphabet."""
    (run,) = models(tmp_path, gen=(0.9, 0.01))
    detected(run, interp={"log_px": 0.9, "distance": 0.8})
    save(run, "eval ood", {"interp": {"distance": {"auroc": 0.8}}, "uniform": {"energy": {"auroc": 0.7}}}, "eval ood distance")
    keys = [key for key in of([run]).lines if key.startswith("ood")]
    assert keys == ["ood mean", "ood interp log_px", "ood interp distance", "ood uniform energy"]


def test_models_of_other_data_are_not_compared(tmp_path: Path) -> None:
    gen, softmax = models(tmp_path, gen=(0.9, 0.01))[0], write(tmp_path, SOFTMAX)
    scored(softmax, 0.5, 0.01, dataset="mnist")
    comparison = of([gen, softmax])
    assert [row.facts for row in comparison.lines["accuracy"]] == ["dataset digits", "dataset mnist"]
    assert "Which classifies best?" not in [one.question for one in comparison.answers]


def test_what_several_seeds_agree_in_is_compared_with_both_variances(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, GEN, seed=seed), accuracy, 0.01) for seed, accuracy in enumerate((0.90, 0.91, 0.92))]
    runs += [scored(write(tmp_path, DIS, seed=seed), accuracy, 0.01) for seed, accuracy in enumerate((0.86, 0.87, 0.88))]
    found = answer(runs, "Which classifies best?")
    assert not found.decided  # means 0.04 apart, each known to 0.022: neither 0.01 of the images nor 1.96 x 0.01 of the seeds alone
    assert found.best == "91.0% ± 1.0% (88.8% to 93.2% over seeds and images)"


def test_without_an_audit_the_weakest_attack_that_can_be_believed_answers(tmp_path: Path) -> None:
    gen, dis = models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))
    for run, kept in ((gen, 0.5), (dis, 0.25)):
        attacked(attacked(run, "pgd", "ce", at4=1 - kept), "apgd", "dlr", at4=kept, at8=kept / 2)
    found = answer([gen, dis], "Which is most robust?")
    assert (found.line.key, found.model.name, found.best) == ("apgd-dlr-linf 4/255", GEN, "50.0% (50.0% to 50.0%)")


def test_attacks_of_other_settings_are_other_rows(tmp_path: Path) -> None:
    gen, dis = models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))
    comparison = of([attacked(gen, "pgd", "margin", at8=0.5), attacked(dis, "pgd", "margin", steps=5, at8=0.75)])
    assert [row.facts for row in comparison.lines["pgd-margin-linf 8/255"]] == ["steps 40", "steps 5"]
    assert "Which is most robust?" not in [one.question for one in comparison.answers]


def test_who_is_best_at_something_but_classifies_clearly_worse_is_said_to(tmp_path: Path) -> None:
    gen, dis, softmax = models(tmp_path, gen=(0.9, 0.01), dis=(0.885, 0.01), softmax=(0.1, 0.01))
    calibrated(gen, 0.3, 0.3)
    calibrated(dis, 0.3, 0.3)
    calibrated(softmax, 0.01, 0.01)
    accuracies = {one.question: one.accuracy for one in of([gen, dis, softmax]).answers}
    assert accuracies["Which is best calibrated?"] == "10.0% (9.0% to 11.0%)"
    assert accuracies["Which classifies best?"] == ""
    assert "its accuracy is 10.0%" in markdown(of([gen, dis, softmax]), "title")


def test_nobody_is_best_at_what_nobody_does(tmp_path: Path) -> None:
    runs = [audited(run, at8=0.0) for run in models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))]
    assert "Which is most robust?" not in [one.question for one in of(runs).answers]


def test_one_model_alone_has_no_answers_and_nothing_left_out(tmp_path: Path) -> None:
    comparison = of([sampled(sampled(run, 0.5), 0.5, "other", n=9) for run in models(tmp_path, gen=(0.9, 0.01))])
    assert (comparison.answers, comparison.left_out) == ([], [])


def test_the_protocol_says_what_all_share_once_and_what_differs_of_each(tmp_path: Path) -> None:
    gen, dis = models(tmp_path, gen=(0.9, 0.0), dis=(0.8, 0.0))
    checkpoint(gen, ("cat", "dog"))
    facts: list[dict[str, Any]] = [{"gamma2": 1.23456, "filter": "none", "nothing": None}, {"gamma2": 2.0, "filter": "none"}]
    for run, protocol in zip((gen, dis), facts, strict=True):
        save(run, "eval calibrate", {"variants": calibration()}, protocol=protocol)
        save(run, "eval ood", {}, n=12345, protocol={"sets": {"interp": {"n": 5, "images": "mixed"}}, "bins": 20})
    assert of([gen, dis]).protocol == [
        f"{GEN}: runs: {gen.id} (step 10)",
        "eval accuracy: digits test, n = 100; ",
        f"{GEN}: eval calibrate: digits test, n = 100; gamma2 1.235; filter none",
        "eval ood: digits test, n = 12,345; sets (interp); bins 20",
        f"{DIS}: runs: {dis.id} (step 0)",
        f"{DIS}: eval calibrate: digits test, n = 100; gamma2 2; filter none",
    ]


def test_the_protocol_names_an_attack_by_its_command_whatever_its_file_is_called(tmp_path: Path) -> None:
    (gen,) = models(tmp_path, gen=(0.9, 0.0))
    attacked(gen, "pgd", "ce", at8=0.5)
    assert "attack pgd: digits test, n = 100; loss ce; norm linf; steps 40; restarts 1" in of([gen]).protocol


def calibration() -> dict[str, Any]:
    return {name: {"ece": 0.1} for name in ("unit", "gamma", "temperature")}


def test_differences_are_those_of_the_recipes(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, GEN, *own), 0.5) for own in ((), ("data.flip=true",))]
    assert of(runs).differences == {"data.flip": [False, True]}
