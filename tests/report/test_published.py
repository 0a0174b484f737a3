import re

import pytest

from gmmcli.errors import RecipeError
from gmmcli.metrics.scores import SCORES
from gmmcli.report import catalogue
from gmmcli.report.catalogue import Protocol, Quantity
from gmmcli.report.published import FALLBACK, Paper, Row, Table, paper
from gmmcli.schema import build

FAMILIES = {"softmax", "softmax-bn", "jem", "jem-joint", "igebm", "gmmc-dis", "gmmc-gen", "gmmc-injected", "gmmc-joint"}
NAMED = {value.key for value in vars(catalogue).values() if isinstance(value, Quantity)} | {
    metric.key for value in vars(catalogue).values() if isinstance(value, tuple) for metric in value if isinstance(metric, Quantity)
}
MADE = re.compile(rf"ood (svhn|interp|cifar100|celeba) ({'|'.join(SCORES)})|(worst|pgd|apgd) (\d+/255|1)|cw")


@pytest.mark.parametrize(
    ("family", "dataset", "metric", "printed"),
    [
        ("gmmc-gen", "cifar10", "accuracy", 94.08),
        ("gmmc-dis", "cifar10", "accuracy", 94.3),
        ("softmax", "cifar10", "accuracy", 93.6),
        ("softmax-bn", "cifar10", "accuracy", 95.8),
        ("jem", "cifar10", "accuracy", 92.9),
        ("igebm", "cifar10", "accuracy", 49.1),
        ("softmax", "svhn", "accuracy", 96.6),
        ("gmmc-gen", "svhn", "accuracy", 97.2),
        ("gmmc-dis", "cifar100", "accuracy", 75.4),
        ("jem", "cifar100", "accuracy", 72.2),
        ("gmmc-gen", "cifar10", "ece", 1.33),
        ("softmax", "cifar10", "ece", 4.18),
        ("jem", "svhn", "ece", 2.08),
        ("softmax", "cifar100", "ece", 22.32),
        ("gmmc-gen", "cifar100", "ece", 7.80),
        ("gmmc-gen", "cifar10", "pgd 4/255", 56.29),
        ("gmmc-gen", "cifar10", "pgd 32/255", 55.02),
        ("gmmc-dis", "cifar10", "pgd 4/255", 44.83),
        ("jem", "cifar10", "pgd 16/255", 5.82),
        ("softmax", "cifar10", "pgd 8/255", 4.95),
    ],
)
def test_shares_are_those_that_the_paper_prints_in_percent(family: str, dataset: str, metric: str, printed: float) -> None:
    assert paper().value(metric, family, dataset) == pytest.approx(printed / 100)


@pytest.mark.parametrize(
    ("family", "metric", "printed"),
    [
        ("jem", "fid", 38.4),
        ("gmmc-gen", "fid", 37.0),
        ("igebm", "is_mean", 8.30),
        ("jem", "is_mean", 8.76),
        ("gmmc-gen", "ood svhn log_px", 0.84),
        ("gmmc-gen", "ood celeba log_px", 0.86),
        ("jem", "ood interp log_px", 0.65),
        ("softmax", "ood cifar100 max_py", 0.85),
        ("gmmc-gen", "ood celeba max_py", 0.31),
        ("igebm", "ood svhn mass", 0.84),
        ("jem", "ood interp mass", 0.78),
        ("gmmc-gen", "cw", 1.686),
        ("gmmc-dis", "cw", 0.564),
        ("softmax", "cw", 0.205),
    ],
)
def test_other_figures_are_as_printed(family: str, metric: str, printed: float) -> None:
    assert paper().value(metric, family, "cifar10") == printed


@pytest.mark.parametrize(("metric", "family", "dataset"), [("fid", "gmmc-dis", "cifar10"), ("fid", "jem", "svhn"), ("x", "jem", "cifar10")])
def test_what_was_not_printed_is_none(metric: str, family: str, dataset: str) -> None:
    assert paper().value(metric, family, dataset) is None


@pytest.mark.parametrize(
    ("metric", "family", "facts", "printed"),
    [
        ("ood mean", "jem", {"over": "svhn, interp, cifar100, celeba"}, 0.685),
        ("ood mean", "jem", {"over": "interp, uniform, gaussian"}, None),
        ("pgd 8/255", "gmmc-gen", {"n": "100", "steps": "40", "restarts": "1"}, 0.5627),
        ("pgd 8/255", "gmmc-gen", {"n": "100", "steps": "5", "restarts": "1"}, None),
        ("cw", "softmax", {"aim": "next", "steps": "100"}, None),
        ("accuracy", "jem", {}, 0.929),
        ("accuracy", "jem", {"refinement": "10 steps"}, None),
    ],
)
def test_what_was_printed_of_another_protocol_does_not_stand_beside_ours(
    metric: str, family: str, facts: dict[str, str], printed: float | None
) -> None:
    assert paper().value(metric, family, "cifar10", Protocol(tuple(facts.items()))) == printed


def test_every_metric_is_one_that_runs_have() -> None:
    named = {metric for table in paper().tables for metric in table.metrics} | {claim.metric for claim in paper().claims}
    assert {metric for metric in named - NAMED if not MADE.fullmatch(metric)} == set()


def test_every_family_is_one_that_recipes_have() -> None:
    named = {row.family for table in paper().tables for row in table.rows} | {f for c in paper().claims for f in (c.better, c.than)}
    assert named - {""} <= FAMILIES
    assert all(claim.better != claim.than for claim in paper().claims)


def test_tables_and_their_rows_are_told_apart_and_each_family_stands_once() -> None:
    names = [table.name for table in paper().tables]
    assert len(set(names)) == len(names)
    for table in paper().tables:
        assert len({row.model for row in table.rows}) == len(table.rows)
        families = [row.family for row in table.rows if row.family]
        assert len(set(families)) == len(families)


def test_shares_lie_between_0_and_1() -> None:
    for table in paper().tables:
        for row in table.rows:
            shares = [value for metric, value in zip(table.metrics, row.values, strict=True) if metric not in ("fid", "is_mean", "cw")]
            assert all(0 <= share <= 1 for share in shares), row


def test_the_fallback_has_tables() -> None:
    assert FALLBACK in {table.dataset for table in paper().tables}


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="row jem has 2 values for 1 metrics"):
        Table("t", "cifar10", ("fid",), (Row("jem", (1.0, 2.0)),))
    table = {"name": "t", "dataset": "d", "metrics": ["fid"], "rows": [{"model": "jem", "values": []}]}
    with pytest.raises(RecipeError, match=r"^`tables\.0`: row jem has 0 values for 1 metrics$"):
        build(Paper, {"tables": [table], "claims": []})
