"""The paper's claims, each tested on the models that it is about."""

from typing import NamedTuple

from gmmcli.report.catalogue import ACCURACY, ECE, OOD_MEAN, Quantity, differing_facts, format_value
from gmmcli.report.compare import Comparison, Line, rank
from gmmcli.report.published import Claim, paper
from gmmcli.report.summary import Summary, format_summary

HOLDS, OPPOSITE, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested here"
KNOWN = {quantity.key: quantity for quantity in (ACCURACY, ECE, OOD_MEAN)}
"""How published values are written where nothing was measured."""


class Finding(NamedTuple):
    """One of the paper's claims, and what was measured about it."""

    claim: Claim
    published: str
    measured: str
    verdict: str


def findings(comparison: Comparison) -> list[Finding]:
    """Every claim with its verdict."""
    return [_finding(comparison, claim) for claim in paper().claims]


def _finding(comparison: Comparison, claim: Claim) -> Finding:
    lines = comparison.lines.get(claim.metric, [])
    quantity = lines[0].quantity if lines else KNOWN.get(claim.metric) or Quantity(claim.metric, "", "")
    printed = [paper().value(claim.metric, family, comparison.dataset) for family in (claim.better, claim.than)]
    published = " against ".join(format_value(quantity, value) for value in printed if value is not None)
    pairs = [[_of_family(comparison, line, family) for family in (claim.better, claim.than)] for line in lines]
    for line, (one, other) in zip(lines, pairs, strict=True):
        if one and other:
            measured = f"{format_summary(line.quantity, one)} against {format_summary(line.quantity, other)}"
            return Finding(claim, published, measured, verdict(line.quantity, one, other, claim.or_equal))
    unlike = [next((line for line, pair in zip(lines, pairs, strict=True) if pair[i]), None) for i in (0, 1)]
    return Finding(claim, published, _difference(*unlike), UNTESTED)


def _of_family(comparison: Comparison, line: Line, family: str) -> Summary | None:
    """That of the first model of a family that has it."""
    summaries = (summary for model, summary in zip(comparison.models, line.summaries, strict=True) if model.family == family)
    return next((summary for summary in summaries if summary), None)


def _difference(one: Line | None, other: Line | None) -> str:
    """Why two lines of a metric are not compared; empty where there are not two."""
    if one is None or other is None:
        return ""
    protocols = [one.quantity.protocol, other.quantity.protocol]
    facts = differing_facts(protocols)
    return "measured differently: " + " against ".join(protocol.describe(facts) for protocol in protocols)


def verdict(quantity: Quantity, one: Summary, other: Summary, or_equal: bool) -> str:
    """Whether one is better than another, beyond their intervals; without an interval nothing holds."""
    if one.interval is None or other.interval is None:
        return UNDECIDED
    ranking = rank(quantity, [one, other])
    if ranking and ranking.decided:
        return HOLDS if ranking.first == 0 else OPPOSITE
    return HOLDS if or_equal else UNDECIDED
