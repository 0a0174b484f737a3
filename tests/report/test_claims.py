from collections.abc import Sequence
from pathlib import Path

import pytest
from handwritten import GEN, JEM, JOINT, audited, calibrated, detected, models, save, scored, write

from gmmcli.report.claims import HOLDS, OPPOSITE, UNDECIDED, UNTESTED, ClaimResult, claim_results
from gmmcli.report.collect import gather
from gmmcli.report.compare import compare
from gmmcli.run import Run


def verdict(runs: Sequence[Run], text: str) -> ClaimResult:
    """What became of the one claim that starts like this."""
    (found,) = [one for one in claim_results(compare(gather(runs))) if one.claim.text.startswith(text)]
    return found


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
    assert found.measured == f"100.0% ({worst}% to 100.0% over trainings) against 0.0% (0.0% to {best}% over trainings)"
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
    found = claim_results(compare(gather([write(tmp_path, JOINT)])))
    assert {one.verdict for one in found} == {UNTESTED}


@pytest.mark.parametrize("known", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    "claim", ["Generative GMMC detects out-of-distribution images by log p(x) better than JEM", "... and cover the real images as well"]
)
def test_nothing_holds_from_one_seed_without_an_interval(claim: str, known: tuple[bool, bool], tmp_path: Path) -> None:
    """0.988 against 0.974 of one seed once "held"."""
    runs = models(tmp_path, gen=(0.9, 0.01), jem=(0.9, 0.01))
    for run, figure, has in zip(runs, (0.988, 0.574), known, strict=True):
        row, coverage = {"auroc": figure}, {"coverage": figure}
        if has:
            row, coverage = row | {"auroc_ci95": [figure, figure]}, coverage | {"coverage_ci95": [figure, figure]}
        save(run, "eval ood", {"interp": {"log_px": row}})
        save(run, "eval generate", coverage)
    assert verdict(runs, claim).verdict == UNDECIDED


def test_seeds_that_scatter_leave_a_claim_open_and_seeds_that_agree_decide_it(tmp_path: Path) -> None:
    def seeds(recipe: str, *values: float) -> list[Run]:
        return [detected(scored(write(tmp_path, recipe, seed=i), 0.9), interp={"log_px": value}) for i, value in enumerate(values)]

    claim = "Generative GMMC detects out-of-distribution images by log p(x) better than JEM"
    gen = seeds(GEN, 0.90, 0.91, 0.92)
    assert verdict([*gen, *seeds(JEM, 0.70, 0.71, 0.72)], claim).verdict == HOLDS
    other = seeds("digits_jem_joint", 0.5)  # of another family
    assert verdict([*gen, *other], claim).verdict == UNTESTED


def test_a_claim_over_unlike_sets_is_about_those_that_are_alike(tmp_path: Path) -> None:
    gen, jem = models(tmp_path, gen=(0.9, 0.01), jem=(0.9, 0.01))
    detected(gen, interp={"log_px": 0.5}, svhn={"log_px": 1.0})
    detected(jem, interp={"log_px": 0.6})
    assert verdict([gen, jem], "Generative GMMC detects out-of-distribution images by log p(x) better than JEM").verdict == OPPOSITE
