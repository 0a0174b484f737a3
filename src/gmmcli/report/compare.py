"""Models side by side: which is best at what, where that is undecided, and what is not compared at all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gmmcli.report.catalogue import (
    ACCURACY,
    AGREEMENT,
    CHOSEN_ECE,
    COVERAGE,
    GROUPS,
    MINUTES,
    OOD_MEAN,
    ROBUSTNESS,
    Metric,
    differing_facts,
    is_detection,
)
from gmmcli.report.collect import Model, differing
from gmmcli.report.published import FALLBACK, paper
from gmmcli.report.summary import Summary

QUESTIONS = (
    ("Which classifies best?", ACCURACY.key),
    ("Whose confidence can be believed?", CHOSEN_ECE.key),
    ("Which knows what it does not know?", OOD_MEAN.key),
    ("Whose samples are recognised?", AGREEMENT.key),
    ("Whose samples cover the real images?", COVERAGE.key),
    ("Which is most robust?", "worst 8/255"),
    ("Which trains fastest?", MINUTES.key),
)


class Ranking(NamedTuple):
    """Models by one metric, as positions."""

    first: int
    """Has the best figure."""
    level: frozenset[int]
    """May be as good: their intervals overlap with the first one's, or there are none."""
    behind: frozenset[int]
    """Clearly worse."""

    @property
    def decided(self) -> bool:
        """Whether one is best beyond what the intervals leave open."""
        return not self.level


def rank(metric: Metric, summaries: Sequence[Summary | None]) -> Ranking | None:
    """Rank what was measured; None for fewer than two figures, or a metric by which nobody is better."""
    known = {i: summary for i, summary in enumerate(summaries) if summary is not None}
    if len(known) < 2 or not metric.better:
        return None
    first = max(known, key=lambda i: -known[i].mean if metric.better == "low" else known[i].mean)
    level = frozenset(i for i in known if i != first and known[i].overlaps(known[first]))
    return Ranking(first, level, frozenset(known) - level - {first})


class Line(NamedTuple):
    """One metric under one protocol, over all models."""

    metric: Metric
    told: str
    """What of its protocol tells it from other lines of the same metric."""
    summaries: list[Summary | None]
    published: list[float | None]

    @property
    def key(self) -> str:
        """A name of its own."""
        return f"{self.metric.key}; {self.told}" if self.told else self.metric.key

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.metric.label}, {self.told}" if self.told else self.metric.label

    @property
    def ranking(self) -> Ranking | None:
        """Who is best at it."""
        return rank(self.metric, self.summaries)

    @property
    def best(self) -> set[int]:
        """The best and those that may be as good, where anybody is clearly behind; nobody without an interval is."""
        ranking = self.ranking
        if ranking is None or not ranking.behind:
            return set()
        return {i for i in {ranking.first, *ranking.level} if (summary := self.summaries[i]) and summary.interval}

    @property
    def measured(self) -> list[int]:
        """The models that have it."""
        return [i for i, summary in enumerate(self.summaries) if summary]


class Answer(NamedTuple):
    """Who is best at one thing, or that it is undecided."""

    question: str
    line: Line
    decided: bool
    model: Model
    """Of the best figure."""
    summary: Summary
    level: list[Model]
    """Which may be as good."""
    why: str
    """Why it is undecided."""
    accuracy: Summary | None
    """How well it classifies, where others do clearly better: to be calibrated at chance, say, is easy."""


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
    def lines(self) -> dict[str, list[Line]]:
        """Every figure by the key of its metric, in the report's order; of several protocols that of most models first."""
        metrics: dict[str, dict[Metric, None]] = {}
        for metric in (metric for model in self.models for found in model.figures for metric in found):
            metrics.setdefault(metric.key, {})[metric] = None
        return {
            key: sorted(self._lines([*some]), key=lambda line: -len(line.measured))
            for group in GROUPS
            for key, some in metrics.items()
            if next(iter(some)).group == group
        }

    def _lines(self, metrics: Sequence[Metric]) -> list[Line]:
        """The lines of one key's metrics, each told from the others by its protocol."""
        facts = dict.fromkeys([*metrics[0].named, *differing_facts(metric.protocol for metric in metrics)])
        return [
            Line(
                metric,
                metric.protocol.told(facts),
                [model.summary(metric) for model in self.models],
                [paper().figure(metric.key, model.family, self.dataset, metric.protocol) for model in self.models],
            )
            for metric in metrics
        ]

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """Every figure, group by group."""
        every = [line for lines in self.lines.values() for line in lines]
        return [(group, own) for group in GROUPS if (own := [line for line in every if line.metric.group == group])]

    def line(self, key: str) -> Line | None:
        """The line of a metric that most models have, or None where nobody has any."""
        return next(iter(self.lines.get(key, ())), None)

    def answers(self) -> list[Answer]:
        """The answers that a reader looks for first: for each, who is best, or that it is undecided and between whom."""
        found = []
        accurate = self.line(ACCURACY.key)
        for question, key in QUESTIONS:
            line = self.line(key)
            if key.startswith("worst") and (line is None or line.ranking is None):
                line = self._most_telling()
            ranking = line and line.ranking
            if line is None or ranking is None:
                continue
            summary = line.summaries[ranking.first]
            if summary is None or (line.metric.better == "high" and not summary.mean):  # nobody is good at it
                continue
            level = sorted(ranking.level)
            blind = [self.models[i].name for i in (ranking.first, *level) if (own := line.summaries[i]) and own.interval is None]
            why = "" if ranking.decided else f"no interval for {', '.join(blind)}" if blind else "the intervals overlap"
            behind = bool(accurate and accurate.ranking and ranking.first in accurate.ranking.behind)
            accuracy = accurate.summaries[ranking.first] if accurate and behind else None
            model = self.models[ranking.first]
            found.append(Answer(question, line, ranking.decided, model, summary, [self.models[i] for i in level], why, accuracy))
        return found

    def _most_telling(self) -> Line | None:
        """Where no audit can be compared: the strongest attack that every model stood, at its smallest radius."""
        every = (line for lines in self.lines.values() for line in lines if line.metric.group == ROBUSTNESS)
        known = (line for line in every if line.ranking and line.metric.key != "cw" and not line.metric.key.startswith("worst"))
        return next((line for line in known if len(line.measured) == len(self.models)), None)

    def left_out(self) -> list[str]:
        """What is not compared, and why: one sentence for all metrics that it concerns."""
        if len(self.models) < 2:
            return []
        concerned: dict[str, list[str]] = {}
        for lines in self.lines.values():
            if len(lines) > 1 and len({i for line in lines for i in line.measured}) > 1:
                protocols = "; ".join(f"{line.told}: {self._names(line.measured)}" for line in lines)
                concerned.setdefault(f"measured in {len(lines)} ways, each a row by itself ({protocols})", []).append(lines[0].metric.label)
        means = {name for line in self.lines.get(OOD_MEAN.key, ()) for name in dict(line.metric.protocol.facts)["over"].split(", ")}
        for line in (line for lines in self.lines.values() for line in lines if is_detection(line.metric)):
            if line.metric.key.split(" ", 1)[1].rpartition(" ")[0] not in means:
                why = f"measured for {self._names(line.measured)} only, so left out of the mean over sets"
                concerned.setdefault(why, []).append(line.label)
        return [f"{', '.join(labels)}: {why}" for why, labels in concerned.items()]

    def _names(self, positions: Iterable[int]) -> str:
        return ", ".join(self.models[i].name for i in positions)

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


def _brief(value: Any) -> str:
    """A protocol's value on one line."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_brief(inner)}" if not isinstance(inner, dict) else key for key, inner in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
