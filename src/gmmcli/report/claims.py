"""The paper's claims, each tested on the models that it is about."""

from typing import NamedTuple

from gmmcli.report.catalogue import ACCURACY, ECE, OOD_MEAN, Quantity, differing_facts, format_value
from gmmcli.report.compare import Comparison, Line, rank
from gmmcli.report.published import Claim, paper

HOLDS, OPPOSITE, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested here"
KNOWN = {quantity.key: quantity for quantity in (ACCURACY, ECE, OOD_MEAN)}
"""How published values are written where nothing was measured."""


class ClaimResult(NamedTuple):
    """One of the paper's claims, and what was measured about it."""

    claim: Claim
    published: str
    measured: str
    verdict: str


def claim_results(comparison: Comparison) -> list[ClaimResult]:
    """Every claim with its verdict."""
    return [_claim_result(comparison, claim) for claim in paper().claims]


def _claim_result(comparison: Comparison, claim: Claim) -> ClaimResult:
    lines = comparison.lines.get(claim.metric, [])
    families = (claim.better, claim.than)
    quantity = lines[0].quantity if lines else KNOWN.get(claim.metric) or Quantity(claim.metric, "", "")
    printed = [paper().value(claim.metric, family, comparison.dataset) for family in families]
    published = " against ".join(format_value(quantity, value) for value in printed if value is not None)
    # of each family the first model that has it
    pairs = [[next((i for i in line.measured if comparison.models[i].family == family), None) for family in families] for line in lines]
    for line, (one, other) in zip(lines, pairs, strict=True):
        if one is not None and other is not None:
            measured = f"{line.cells[one]} against {line.cells[other]}"
            return ClaimResult(claim, published, measured, verdict(line, one, other, claim.or_equal))
    unlike = [next((line for line, pair in zip(lines, pairs, strict=True) if pair[i] is not None), None) for i in (0, 1)]
    return ClaimResult(claim, published, _difference(*unlike), UNTESTED)


def _difference(one: Line | None, other: Line | None) -> str:
    """Why two lines of a metric are not compared; empty where there are not two."""
    if one is None or other is None:
        return ""
    protocols = [one.quantity.protocol, other.quantity.protocol]
    facts = differing_facts(protocols)
    return "measured differently: " + " against ".join(protocol.describe(facts) for protocol in protocols)


def verdict(line: Line, one: int, other: int, or_equal: bool) -> str:
    """Whether one model is better than another, beyond their intervals; without an interval nothing holds."""
    summaries = [line.summaries[i] for i in (one, other)]
    if any(summary is None or summary.interval is None for summary in summaries):
        return UNDECIDED
    ranking = rank(line.quantity, summaries)
    if ranking and not ranking.tied:
        return HOLDS if ranking.first == 0 else OPPOSITE
    return HOLDS if or_equal else UNDECIDED
