"""The paper's claims, each held against the models that it is about."""

from typing import NamedTuple

from gmmcli.report.catalogue import ACCURACY, ECE, OOD_MEAN, Metric, differing_facts, said
from gmmcli.report.compare import Comparison, Line, rank
from gmmcli.report.published import Claim, paper
from gmmcli.report.summary import Summary, summarised

HOLDS, OPPOSITE, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested here"
KNOWN = {metric.key: metric for metric in (ACCURACY, ECE, OOD_MEAN)}
"""How published figures are written where nobody measured theirs."""


class Verdict(NamedTuple):
    """What became of one of the paper's claims."""

    claim: Claim
    published: str
    measured: str
    verdict: str


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Every claim with its verdict."""
    return [_verdict(comparison, claim) for claim in paper().claims]


def _verdict(comparison: Comparison, claim: Claim) -> Verdict:
    lines = comparison.lines.get(claim.metric, [])
    metric = lines[0].metric if lines else KNOWN.get(claim.metric) or Metric(claim.metric, "", "")
    printed = [paper().figure(claim.metric, family, comparison.dataset) for family in (claim.better, claim.than)]
    published = " against ".join(said(metric, figure) for figure in printed if figure is not None)
    for line in lines:
        one, other = (_of_family(comparison, line, family) for family in (claim.better, claim.than))
        if one and other:
            measured = f"{summarised(line.metric, one)} against {summarised(line.metric, other)}"
            return Verdict(claim, published, measured, judged(line.metric, one, other, claim.or_equal))
    unlike = (next((line for line in lines if _of_family(comparison, line, family)), None) for family in (claim.better, claim.than))
    return Verdict(claim, published, _unlike(*unlike), UNTESTED)


def _of_family(comparison: Comparison, line: Line, family: str) -> Summary | None:
    """The figure of the first model of a family that has it."""
    found = (summary for model, summary in zip(comparison.models, line.summaries, strict=True) if model.family == family)
    return next((summary for summary in found if summary), None)


def _unlike(one: Line | None, other: Line | None) -> str:
    """Why two figures of a metric are not compared; empty where there are not two."""
    if one is None or other is None:
        return ""
    facts = differing_facts([one.metric.protocol, other.metric.protocol])
    return f"measured differently: {one.metric.protocol.told(facts)} against {other.metric.protocol.told(facts)}"


def judged(metric: Metric, one: Summary, other: Summary, or_equal: bool) -> str:
    """Whether one is better than another, beyond what their intervals leave open; without an interval nothing holds."""
    if one.interval is None or other.interval is None:
        return UNDECIDED
    ranking = rank(metric, [one, other])
    if ranking and ranking.decided:
        return HOLDS if ranking.first == 0 else OPPOSITE
    return HOLDS if or_equal else UNDECIDED
