"""Models side by side: who is best at what, what the paper printed, and which of its claims hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gmmcli.report.collect import (
    ACCURACY,
    AGREEMENT,
    CHOSEN_ECE,
    COVERAGE,
    ECE,
    MINUTES,
    OOD_MEAN,
    ROBUSTNESS,
    Metric,
    Model,
    Summary,
    differing,
    rows,
)
from gmmcli.report.published import FALLBACK, Claim, paper

HOLDS, OPPOSITE, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested here"


class Line(NamedTuple):
    """One metric over all models."""

    metric: Metric
    summaries: list[Summary | None]
    best: set[int]
    """The best model and those that may be as good: their spreads overlap. Empty where there is nothing to compare."""
    published: list[float | None]


class Champion(NamedTuple):
    """Who is best at one thing."""

    question: str
    metric: Metric
    model: Model
    summary: Summary
    tied: list[Model]
    accuracy: Summary | None
    """How well it classifies, where others do clearly better: to be calibrated at chance, say, is easy."""


class Verdict(NamedTuple):
    """What became of one of the paper's claims."""

    claim: Claim
    published: str
    measured: str
    verdict: str


KNOWN = {metric.key: metric for metric in (ACCURACY, ECE, OOD_MEAN)}
"""How published figures are written where nobody measured theirs."""
QUESTIONS = (
    ("Which classifies best?", ACCURACY.key),
    ("Whose confidence can be believed?", CHOSEN_ECE.key),
    ("Which knows what it does not know?", OOD_MEAN.key),
    ("Whose samples are recognised?", AGREEMENT.key),
    ("Whose samples cover the real images?", COVERAGE.key),
    ("Which stands attacks?", "worst 8/255"),
    ("Which trains fastest?", MINUTES.key),
)


@dataclass(frozen=True)
class Comparison:
    """Models of one report."""

    models: Sequence[Model]

    @property
    def dataset(self) -> str:
        """The dataset whose published figures stand beside ours."""
        kinds = {model.recipe.data.source.kind for model in self.models}
        known = {table.dataset for table in paper().tables}
        return kinds.pop() if len(kinds) == 1 and kinds <= known else FALLBACK

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric that a model has, by its key, in the report's order."""
        return {metric.key: metric for _, metrics in rows(self.models) for metric in metrics}

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """Every figure, group by group."""
        return [(group, [self.line(metric) for metric in metrics]) for group, metrics in rows(self.models)]

    def line(self, metric: Metric) -> Line:
        """One metric over all models."""
        summaries = [model.summary(metric) for model in self.models]
        published = [paper().figure(metric.key, model.family, self.dataset) for model in self.models]
        return Line(metric, summaries, best_of(metric, summaries), published)

    def champions(self) -> list[Champion]:
        """The answers that a reader looks for first; for each, who is best and who may be as good."""
        found = []
        accurate = self.line(ACCURACY)
        for question, key in QUESTIONS:
            metric = self.metrics.get(key) or (self._most_telling() if key.startswith("worst") else None)
            if metric is None or not (line := self.line(metric)).best:
                continue
            first = max(line.best, key=lambda i: _goodness(metric, line.summaries[i]))
            summary = line.summaries[first]
            if summary is None or (metric.better == "high" and not summary.mean):  # nobody is good at it
                continue
            tied = [self.models[i] for i in sorted(line.best - {first})]
            behind = bool(accurate.best) and first not in accurate.best
            found.append(Champion(question, metric, self.models[first], summary, tied, accurate.summaries[first] if behind else None))
        return found

    def differences(self) -> dict[str, list[Any]]:
        """The keys in which the models' recipes differ."""
        return differing([model.recipe for model in self.models])

    def protocol(self) -> list[str]:
        """How the figures were made, a line a fact; what differs between models is said for each."""
        lines: dict[str, list[str]] = {}
        for model in self.models:
            runs = ", ".join(f"{run.id} (step {run.checkpoint().step if run.checkpoints else 0})" for run in model.runs)
            lines.setdefault(f"runs: {runs}", []).append(model.name)
            for result in model.results[0].values():
                about = f"{result['dataset']} {result['split']}, n = {result['n']:,}"
                facts = "; ".join(f"{key} {_brief(value)}" for key, value in result["protocol"].items() if value not in (None, "", {}, []))
                lines.setdefault(f"{result['command']}: {about}; {facts}", []).append(model.name)
        everyone = len(self.models)
        return [line if len(names) == everyone else f"{', '.join(names)}: {line}" for line, names in lines.items()]

    def _most_telling(self) -> Metric | None:
        """Where no audit was made: the strongest attack that every model stood, at its smallest radius."""
        known = (metric for metric in self.metrics.values() if metric.group == ROBUSTNESS and metric.better and metric.key != "cw")
        return next((metric for metric in known if all(metric in model.figures for model in self.models)), None)

    def verdicts(self) -> list[Verdict]:
        """The paper's claims, each held against the models that it is about."""
        return [self._verdict(claim) for claim in paper().claims]

    def _verdict(self, claim: Claim) -> Verdict:
        metric = self.metrics.get(claim.metric)
        printed = [paper().figure(claim.metric, family, self.dataset) for family in (claim.better, claim.than)]
        published = " against ".join(
            said(metric or KNOWN.get(claim.metric) or Metric(claim.metric, "", ""), figure) for figure in printed if figure is not None
        )
        one, other = (self._of_family(metric, family) for family in (claim.better, claim.than))
        if metric is None or one is None or other is None:
            return Verdict(claim, published, "", UNTESTED)
        measured = f"{summarised(metric, one)} against {summarised(metric, other)}"
        return Verdict(claim, published, measured, _judged(metric, one, other, claim.or_equal))

    def _of_family(self, metric: Metric | None, family: str) -> Summary | None:
        """The figure of the first model of a family that has it."""
        found = (model.summary(metric) for model in self.models if metric and model.family == family)
        return next((summary for summary in found if summary), None)


def _judged(metric: Metric, one: Summary, other: Summary, or_equal: bool) -> str:
    """Whether one is better than another, beyond what their spreads leave open."""
    better = _goodness(metric, one) > _goodness(metric, other)
    if not _overlap(one, other):
        return HOLDS if better else OPPOSITE
    return HOLDS if or_equal else UNDECIDED


def best_of(metric: Metric, summaries: Sequence[Summary | None]) -> set[int]:
    """Return the positions of the best summary and of those whose spread overlaps with its; none where fewer than two were measured."""
    known = [(i, summary) for i, summary in enumerate(summaries) if summary is not None]
    if len(known) < 2 or not metric.better:
        return set()
    _, first = max(known, key=lambda pair: _goodness(metric, pair[1]))
    return {i for i, summary in known if summary.mean == first.mean or _overlap(summary, first)}


def _goodness(metric: Metric, summary: Summary | None) -> float:
    if summary is None:
        return float("-inf")
    return -summary.mean if metric.better == "low" else summary.mean


def _overlap(one: Summary, other: Summary) -> bool:
    (a, b), (c, d) = one.spread, other.spread
    return a <= d and c <= b


def _brief(value: Any) -> str:
    """A protocol's value on one line."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_brief(inner)}" if not isinstance(inner, dict) else key for key, inner in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def said(metric: Metric, value: float) -> str:
    """Return a value as people write it: shares in percent, an error's with two digits behind the point."""
    if metric.share:
        return f"{100 * value:.{2 if metric.better == 'low' else 1}f}%"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def summarised(metric: Metric, summary: Summary) -> str:
    """Return mean +- std over seeds, or one run's figure with its interval."""
    text = said(metric, summary.mean)
    if summary.std is not None:
        return f"{text} ± {said(metric, summary.std)}"
    return f"{text} ({said(metric, summary.ci95[0])} to {said(metric, summary.ci95[1])})" if summary.ci95 else text
