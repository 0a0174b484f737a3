from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from handwritten import DIS, GEN, JEM, JOINT, SOFTMAX, attacked, audited, calibrated, checkpoint, detected, models, save, scored, write

from gmmcli.report.collect import ACCURACY, ECE, MINUTES, Metric, Summary, gather
from gmmcli.report.compare import HOLDS, OPPOSITE, UNDECIDED, UNTESTED, Comparison, Verdict, best_of, said, summarised
from gmmcli.report.text import markdown
from gmmcli.run import Run

LOSS = Metric("loss", "loss", "", "low", share=False)
NEITHER = Metric("pgd 8/255", "PGD", "", "")


def of(runs: Sequence[Run]) -> Comparison:
    return Comparison(gather(runs))


def verdict(runs: Sequence[Run], text: str) -> Verdict:
    """What became of the one claim that starts like this."""
    (found,) = [one for one in of(runs).verdicts() if one.claim.text.startswith(text)]
    return found


def alone(mean: float, low: float | None = None, high: float | None = None) -> Summary:
    return Summary(mean, None, 1, None if low is None or high is None else (low, high))


def seeds(mean: float, std: float) -> Summary:
    return Summary(mean, std, 3, None)


@pytest.mark.parametrize(
    ("metric", "summaries", "best"),
    [
        (ACCURACY, [alone(0.5), alone(0.75), alone(0.25)], {1}),
        (LOSS, [alone(0.5), alone(0.75), alone(0.25)], {2}),
        (NEITHER, [alone(0.5), alone(0.75)], set()),
        (ACCURACY, [alone(0.5)], set()),
        (ACCURACY, [None, alone(0.5), None], set()),
        (ACCURACY, [None, None], set()),
        (ACCURACY, [None, alone(0.5), alone(0.75)], {2}),
        (ACCURACY, [alone(0.5), alone(0.5), alone(0.25)], {0, 1}),
        (ACCURACY, [alone(0.75, 0.7, 0.8), alone(0.65, 0.6, 0.7), alone(0.5, 0.4, 0.59)], {0, 1}),  # at 0.7 they touch
        (ACCURACY, [alone(0.75, 0.7, 0.8), alone(0.65, 0.6, 0.69)], {0}),
        (LOSS, [seeds(1.0, 0.25), seeds(1.5, 0.25), seeds(2.0, 0.5)], {0, 1}),
        (LOSS, [seeds(1.0, 0.25), seeds(1.75, 0.25), alone(1.25)], {0, 2}),
    ],
)
def test_best_is_the_best_mean_and_all_whose_spread_overlaps_with_its(
    metric: Metric, summaries: list[Summary | None], best: set[int]
) -> None:
    assert best_of(metric, summaries) == best


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (ACCURACY, 0.9408, "94.1%"),
        (ACCURACY, 1.0, "100.0%"),
        (ECE, 0.0133, "1.33%"),
        (LOSS, 0.1234, "0.123"),
        (LOSS, 1.686, "1.69"),
        (LOSS, 12345.6, "12346"),
        (LOSS, -0.5, "-0.500"),
        (LOSS, -2.0, "-2.00"),
    ],
)
def test_a_value_is_said_as_people_write_it(metric: Metric, value: float, text: str) -> None:
    assert said(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "summary", "text"),
    [
        (ACCURACY, Summary(0.9, 0.015, 3, (0.8, 0.95)), "90.0% ± 1.5%"),
        (ACCURACY, alone(0.9, 0.85, 0.925), "90.0% (85.0% to 92.5%)"),
        (LOSS, alone(1.5), "1.50"),
        (LOSS, Summary(1.5, 0.0, 2, None), "1.50 ± 0.000"),
    ],
)
def test_a_summary_says_how_far_it_is_known(metric: Metric, summary: Summary, text: str) -> None:
    assert summarised(metric, summary) == text


def test_a_line_has_every_models_summary_the_best_and_the_papers_figures(tmp_path: Path) -> None:
    runs = [*models(tmp_path, gen=(0.9, 0.01), igebm=(0.5, 0.01), gen_injected=(0.895, 0.01)), write(tmp_path, DIS)]
    line = of(runs).line(ACCURACY)
    assert [summary and summary.mean for summary in line.summaries] == [0.9, 0.5, 0.895, None]
    assert line.best == {0, 2}
    assert line.published == [0.9408, 0.491, None, 0.943]


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
    assert of(runs).line(ACCURACY).published == [{"svhn": 0.972, "cifar10": 0.9408}[dataset]] * 2


def test_the_groups_hold_every_figure_once(tmp_path: Path) -> None:
    runs = [calibrated(run, 0.1, 0.2) for run in models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))]
    keys = [line.metric.key for _, lines in of(runs).groups for line in lines]
    assert keys == ["accuracy", "nll", "brier", "ece", "ece temperature", "ece chosen", "ended", "minutes"]


def test_champions_answer_what_can_be_answered_and_name_who_is_as_good(tmp_path: Path) -> None:
    gen, dis, softmax = models(tmp_path, gen=(0.9, 0.01), dis=(0.885, 0.01), softmax=(0.5, 0.1))
    calibrated(gen, 0.3, 0.1, (0.3, 0.1))
    calibrated(dis, 0.02, 0.5)
    calibrated(softmax, 0.5, 0.5)
    detected(gen, interp={"log_px": 0.5})  # one alone is not better than anyone
    audited(audited(gen, at8=0.25), at1=0.9, at8=0.25)
    audited(dis, at1=0.5, at8=0.125)
    answers = {
        one.question: (one.metric.key, one.model.name, [model.name for model in one.tied]) for one in of([gen, dis, softmax]).champions()
    }
    assert answers == {
        "Which classifies best?": ("accuracy", GEN, [DIS]),
        "Whose confidence can be believed?": ("ece chosen", DIS, []),
        "Which stands attacks?": ("worst 8/255", GEN, []),
        "Which trains fastest?": ("minutes", GEN, [DIS, SOFTMAX]),
    }


def test_without_an_audit_the_weakest_attack_that_can_be_believed_answers(tmp_path: Path) -> None:
    gen, dis = models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))
    for run, kept in ((gen, 0.5), (dis, 0.25)):
        attacked(attacked(run, "pgd", "ce", at4=1 - kept), "apgd", "dlr", at4=kept, at8=kept / 2)
    (answer,) = [one for one in of([gen, dis]).champions() if one.question == "Which stands attacks?"]
    assert (answer.metric.key, answer.model.name, answer.summary.mean) == ("apgd-dlr-linf 4/255", GEN, 0.5)


def test_who_is_best_at_something_but_classifies_clearly_worse_is_said_to(tmp_path: Path) -> None:
    gen, dis, softmax = models(tmp_path, gen=(0.9, 0.01), dis=(0.885, 0.01), softmax=(0.1, 0.01))
    calibrated(gen, 0.3, 0.3)
    calibrated(dis, 0.3, 0.3)
    calibrated(softmax, 0.01, 0.01)
    said = {one.question: one.accuracy and one.accuracy.mean for one in of([gen, dis, softmax]).champions()}
    assert said["Whose confidence can be believed?"] == 0.1
    assert said["Which classifies best?"] is None
    assert "its accuracy is 10.0%" in markdown(of([gen, dis, softmax]), "title")


def test_nobody_is_best_at_what_nobody_does(tmp_path: Path) -> None:
    runs = [audited(run, at8=0.0) for run in models(tmp_path, gen=(0.9, 0.01), dis=(0.8, 0.01))]
    assert "Which stands attacks?" not in [one.question for one in of(runs).champions()]


def test_one_model_alone_is_no_champion(tmp_path: Path) -> None:
    assert of(models(tmp_path, gen=(0.9, 0.01))).champions() == []


CLASSIFIES = "Generative GMMC classifies as well as softmax"
BEATS_JEM = "Generative GMMC classifies better than JEM"


@pytest.mark.parametrize(
    ("claim", "gen", "other", "expected"),
    [
        (BEATS_JEM, (0.9, 0.01), (0.8, 0.01), HOLDS),
        (BEATS_JEM, (0.8, 0.01), (0.9, 0.01), OPPOSITE),
        (BEATS_JEM, (0.9, 0.06), (0.8, 0.06), UNDECIDED),
        (BEATS_JEM, (0.8, 0.06), (0.9, 0.06), UNDECIDED),
        (BEATS_JEM, (0.9, 0.01), (0.9, 0.01), UNDECIDED),
        (CLASSIFIES, (0.9, 0.01), (0.8, 0.01), HOLDS),
        (CLASSIFIES, (0.8, 0.06), (0.9, 0.06), HOLDS),
        (CLASSIFIES, (0.8, 0.01), (0.9, 0.01), OPPOSITE),
    ],
)
def test_a_claim_is_held_against_both_models_and_their_spreads(
    claim: str, gen: tuple[float, float], other: tuple[float, float], expected: str, tmp_path: Path
) -> None:
    runs = models(tmp_path, gen=gen, **{"jem" if claim == BEATS_JEM else "softmax": other})
    found = verdict(runs, claim)
    assert found.verdict == expected
    assert found.measured == " against ".join(f"{m:.1%} ({m - w:.1%} to {m + w:.1%})" for m, w in (gen, other))
    assert found.published == ("94.1% against 92.9%" if claim == BEATS_JEM else "94.1% against 93.6%")


def test_where_low_is_better_the_lower_one_is_better(tmp_path: Path) -> None:
    gen, softmax = (
        calibrated(run, ece, 0.5) for run, ece in zip(models(tmp_path, gen=(0.9, 0), softmax=(0.9, 0)), (0.01, 0.1), strict=True)
    )
    found = verdict([gen, softmax], "Generative GMMC is better calibrated than softmax")
    assert (found.verdict, found.published) == (HOLDS, "1.33% against 4.18%")
    assert found.measured == "1.00% (0.50% to 2.00%) against 10.00% (5.00% to 20.00%)"


@pytest.mark.parametrize(("n", "worst", "best", "expected"), [(1, 20.7, 79.3, UNDECIDED), (4, 51.0, 49.0, HOLDS)])
def test_a_few_trainings_leave_open_which_is_the_more_stable(n: int, worst: float, best: float, expected: str, tmp_path: Path) -> None:
    runs = [write(tmp_path, GEN, seed=seed) for seed in range(n)] + [
        write(tmp_path, JEM, seed=seed, status="diverged") for seed in range(n)
    ]
    found = verdict(runs, "GMMC trains more stably than JEM")  # by Wilson's interval: n / (n + 1.96²) at the least
    assert found.measured == f"100.0% ({worst}% to 100.0%) against 0.0% (0.0% to {best}%)"
    assert found.verdict == expected


@pytest.mark.parametrize("names", [["gen"], ["jem"], ["gen", "softmax"], []])
def test_a_claim_about_models_that_are_not_there_is_not_tested(names: list[str], tmp_path: Path) -> None:
    runs = models(tmp_path, joint=(0.9, 0.0), **dict.fromkeys(names, (0.9, 0.0)))
    found = verdict(runs, BEATS_JEM)
    assert (found.measured, found.verdict) == ("", UNTESTED)
    assert found.published == "94.1% against 92.9%"


def test_a_claim_about_what_was_not_measured_is_not_tested(tmp_path: Path) -> None:
    gen, jem = models(tmp_path, gen=(0.9, 0.0), jem=(0.8, 0.0))
    audited(gen, at8=0.5)
    assert verdict([gen, jem], "Generative GMMC is more robust than JEM").verdict == UNTESTED
    assert verdict([gen, audited(jem, at8=0.25)], "Generative GMMC is more robust than JEM").verdict == HOLDS


def test_every_claim_gets_its_verdict_whatever_was_measured(tmp_path: Path) -> None:
    found = of([write(tmp_path, JOINT)]).verdicts()
    assert {one.verdict for one in found} == {UNTESTED}


def test_the_protocol_says_what_all_share_once_and_what_differs_of_each(tmp_path: Path) -> None:
    gen, dis = models(tmp_path, gen=(0.9, 0.0), dis=(0.8, 0.0))
    checkpoint(gen, ("cat", "dog"))
    facts: list[dict[str, Any]] = [{"gamma2": 1.23456, "filter": "none", "nothing": None}, {"gamma2": 2.0, "filter": "none"}]
    for run, protocol in zip((gen, dis), facts, strict=True):
        save(run, "eval calibrate", {"variants": calibration()}, protocol=protocol)
        save(run, "eval ood", {}, n=12345, protocol={"sets": {"interp": {"n": 5, "images": "mixed"}}, "bins": 20})
    assert of([gen, dis]).protocol() == [
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
    assert "attack pgd: digits test, n = 100; loss ce; norm linf; steps 40; restarts 1" in of([gen]).protocol()


def calibration() -> dict[str, Any]:
    return {name: {"ece": 0.1} for name in ("unit", "gamma", "temperature")}


def test_differences_are_those_of_the_recipes(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, GEN, *own), 0.5) for own in ((), ("data.flip=true",))]
    assert of(runs).differences() == {"data.flip": [False, True]}


def test_the_fastest_is_known_to_the_minute_alone(tmp_path: Path) -> None:
    runs = [scored(write(tmp_path, name), 0.5) for name in (GEN, DIS)]
    runs[1].describe(wall_time_s=60.0)
    assert of(runs).line(MINUTES).best == {1}
