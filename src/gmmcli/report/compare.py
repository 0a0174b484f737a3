"""Models side by side: which is best at what, where that is undecided, and what is not compared at all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gmmcli.report.catalogue import (
    ACCURACY,
    AGREEMENT,
    COVERAGE,
    ECE_SELECTED,
    GROUPS,
    MINUTES,
    OOD_MEAN,
    ROBUSTNESS,
    Quantity,
    differing_facts,
    is_detection,
)
from gmmcli.report.collect import ModelRuns, differing
from gmmcli.report.published import FALLBACK, paper
from gmmcli.report.summary import Summary

QUESTIONS = (
    ("Which classifies best?", ACCURACY.key),
    ("Which is best calibrated?", ECE_SELECTED.key),
    ("Which detects out-of-distribution images best?", OOD_MEAN.key),
    ("Whose samples agree best with their labels?", AGREEMENT.key),
    ("Whose samples cover the real images best?", COVERAGE.key),
    ("Which is most robust?", "worst 8/255"),
    ("Which trains fastest?", MINUTES.key),
)


class Ranking(NamedTuple):
    """Models by one quantity, as positions."""

    first: int
    """Has the best mean."""
    tied: frozenset[int]
    """May be as good: their intervals overlap with the first one's, or there are none."""
    behind: frozenset[int]
    """Clearly worse."""

    @property
    def decided(self) -> bool:
        """Whether the first is better than all others beyond the intervals."""
        return not self.tied


def rank(quantity: Quantity, summaries: Sequence[Summary | None]) -> Ranking | None:
    """Rank what was measured; None for fewer than two summaries, or a quantity of which neither direction is better."""
    known = {i: summary for i, summary in enumerate(summaries) if summary is not None}
    if len(known) < 2 or not quantity.better:
        return None
    first = max(known, key=lambda i: -known[i].mean if quantity.better == "low" else known[i].mean)
    tied = frozenset(i for i in known if i != first and known[i].overlaps(known[first]))
    return Ranking(first, tied, frozenset(known) - tied - {first})


class Line(NamedTuple):
    """One quantity over all models: a line of the report."""

    quantity: Quantity
    facts: str
    """What of its protocol tells it from other lines of the same metric."""
    summaries: list[Summary | None]
    published: list[float | None]

    @property
    def key(self) -> str:
        """A key of its own."""
        return f"{self.quantity.key}; {self.facts}" if self.facts else self.quantity.key

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.quantity.label}, {self.facts}" if self.facts else self.quantity.label

    @property
    def ranking(self) -> Ranking | None:
        """Which model is best at it."""
        return rank(self.quantity, self.summaries)

    @property
    def best(self) -> set[int]:
        """The best and those that may be as good, where any model is clearly behind; none without an interval."""
        ranking = self.ranking
        if ranking is None or not ranking.behind:
            return set()
        return {i for i in {ranking.first, *ranking.tied} if (summary := self.summaries[i]) and summary.interval}

    @property
    def measured(self) -> list[int]:
        """The models that have it."""
        return [i for i, summary in enumerate(self.summaries) if summary]


class Answer(NamedTuple):
    """Which model is best at one thing, or that it is undecided."""

    question: str
    line: Line
    decided: bool
    model: ModelRuns
    """With the best mean."""
    summary: Summary
    tied: list[ModelRuns]
    """Which may be as good."""
    reason: str
    """Why it is undecided."""
    accuracy: Summary | None
    """Its accuracy, where others classify clearly better: to be calibrated at chance, say, is easy."""


@dataclass(frozen=True)
class Comparison:
    """Models of one report."""

    models: Sequence[ModelRuns]

    @property
    def dataset(self) -> str:
        """The dataset whose published values stand beside ours."""
        kinds = {model.recipe.data.source.kind for model in self.models}
        known = {table.dataset for table in paper().tables}
        return kinds.pop() if len(kinds) == 1 and kinds <= known else FALLBACK

    @cached_property
    def lines(self) -> dict[str, list[Line]]:
        """All quantities by the key of their metric, in the report's order; of several protocols that of most models first."""
        quantities = dict.fromkeys(quantity for model in self.models for known in model.estimates for quantity in known)
        dataset, lines = self.dataset, dict[str, list[Line]]()
        for quantity in sorted(quantities, key=lambda quantity: GROUPS.index(quantity.group)):
            if quantity.key in lines:
                continue
            alike = [other for other in quantities if other.key == quantity.key]
            facts = dict.fromkeys([*quantity.named, *differing_facts(other.protocol for other in alike)])
            of_metric = [
                Line(
                    other,
                    other.protocol.describe(facts),
                    [model.summary(other) for model in self.models],
                    [paper().value(other.key, model.family, dataset, other.protocol) for model in self.models],
                )
                for other in alike
            ]
            lines[quantity.key] = sorted(of_metric, key=lambda line: -len(line.measured))
        return lines

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """All lines, group by group."""
        every = [line for lines in self.lines.values() for line in lines]
        return [(group, lines) for group in GROUPS if (lines := [line for line in every if line.quantity.group == group])]

    def line(self, key: str) -> Line | None:
        """The line of a metric that most models have, or None where none has any."""
        return next(iter(self.lines.get(key, ())), None)

    def answers(self) -> list[Answer]:
        """The answers that a reader looks for first: for each, which model is best, or that it is undecided and between which."""
        answers = []
        accurate = self.line(ACCURACY.key)
        for question, key in QUESTIONS:
            line = self.line(key)
            if key.startswith("worst") and (line is None or line.ranking is None):
                line = self._strongest_attack()
            ranking = line and line.ranking
            if line is None or ranking is None:
                continue
            summary = line.summaries[ranking.first]
            if summary is None or (line.quantity.better == "high" and not summary.mean):  # none is good at it
                continue
            tied = sorted(ranking.tied)
            bare = [self.models[i].name for i in (ranking.first, *tied) if (other := line.summaries[i]) and other.interval is None]
            reason = "" if ranking.decided else f"no interval for {', '.join(bare)}" if bare else "the intervals overlap"
            behind = bool(accurate and accurate.ranking and ranking.first in accurate.ranking.behind)
            accuracy = accurate.summaries[ranking.first] if accurate and behind else None
            model = self.models[ranking.first]
            answers.append(Answer(question, line, ranking.decided, model, summary, [self.models[i] for i in tied], reason, accuracy))
        return answers

    def _strongest_attack(self) -> Line | None:
        """Where no audit can be compared: the first attack that all models were measured under, at its smallest radius."""
        every = (line for lines in self.lines.values() for line in lines if line.quantity.group == ROBUSTNESS)
        ranked = (line for line in every if line.ranking and line.quantity.key != "cw" and not line.quantity.key.startswith("worst"))
        return next((line for line in ranked if len(line.measured) == len(self.models)), None)

    def left_out(self) -> list[str]:
        """What is not compared, and why: one sentence for all metrics that it concerns."""
        if len(self.models) < 2:
            return []
        labels: dict[str, list[str]] = {}
        for lines in self.lines.values():
            if len(lines) > 1 and len({i for line in lines for i in line.measured}) > 1:
                protocols = "; ".join(f"{line.facts}: {self._names(line.measured)}" for line in lines)
                labels.setdefault(f"measured under {len(lines)} protocols, one row each ({protocols})", []).append(lines[0].quantity.label)
        means = {name for line in self.lines.get(OOD_MEAN.key, ()) for name in dict(line.quantity.protocol.facts)["over"].split(", ")}
        for line in (line for lines in self.lines.values() for line in lines if is_detection(line.quantity)):
            if line.quantity.key.split(" ", 1)[1].rpartition(" ")[0] not in means:
                reason = f"measured for {self._names(line.measured)} only, so left out of the mean over sets"
                labels.setdefault(reason, []).append(line.label)
        return [f"{', '.join(concerned)}: {reason}" for reason, concerned in labels.items()]

    def _names(self, positions: Iterable[int]) -> str:
        return ", ".join(self.models[i].name for i in positions)

    def differences(self) -> dict[str, list[Any]]:
        """The keys in which the models' recipes differ."""
        return differing([model.recipe for model in self.models])

    def protocol(self) -> list[str]:
        """How everything was measured, a line a fact; what differs between models is listed for each."""
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
