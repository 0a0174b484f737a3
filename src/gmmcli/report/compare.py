"""Models side by side: which is best at what, where that is undecided, and what is not compared at all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gmmcli.data.outliers import public_name
from gmmcli.errors import quoted
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
from gmmcli.report.collect import ModelRuns, differing, unfinished
from gmmcli.report.published import FALLBACK, paper
from gmmcli.report.summary import Summary, format_summary

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
    key: str
    """Unlike that of any other line."""
    label: str
    summaries: list[Summary | None]
    cells: list[str]
    """The summaries as text; empty where there is none."""
    published: list[float | None]
    measured: list[int]
    """The models that have it."""
    ranking: Ranking | None
    best: frozenset[int]
    """The best and those that may be as good, where any model is clearly behind; none without an interval."""

    @classmethod
    def of(cls, quantity: Quantity, facts: str, summaries: list[Summary | None], published: list[float | None]) -> "Line":
        """Rank models by their summaries, and write them out."""
        key = f"{quantity.key}; {facts}" if facts else quantity.key
        label = f"{quantity.label}, {facts}" if facts else quantity.label
        cells = [format_summary(quantity, summary) if summary else "" for summary in summaries]
        measured = [i for i, summary in enumerate(summaries) if summary]
        ranking = rank(quantity, summaries)
        top = {ranking.first, *ranking.tied} if ranking and ranking.behind else set()
        best = frozenset(i for i in top if (summary := summaries[i]) and summary.interval)
        return cls(quantity, facts, key, label, summaries, cells, published, measured, ranking, best)


class Answer(NamedTuple):
    """Which model is best at one thing, or that it is undecided."""

    question: str
    line: Line
    decided: bool
    model: ModelRuns
    """With the best mean."""
    best: str
    """Its summary as text."""
    tied: list[ModelRuns]
    """Which may be as good."""
    reason: str
    """Why it is undecided."""
    accuracy: str
    """Its accuracy, where others classify clearly better: to be calibrated at chance, say, is easy."""


@dataclass(frozen=True)
class Comparison:
    """What a report says of its models (``compare``)."""

    models: Sequence[ModelRuns]
    dataset: str
    """Whose published values stand beside ours."""
    lines: dict[str, list[Line]]
    """All quantities by the key of their metric, in the report's order; of several protocols that of most models first."""
    answers: list[Answer]
    """To the questions that a reader asks first."""
    left_out: list[str]
    """What is not compared, and why: one sentence for all metrics that it concerns."""
    differences: dict[str, list[Any]]
    """The keys in which the models' recipes differ."""
    unfinished: list[str]
    """How far trainings are that have not ended, a sentence each."""
    protocol: list[str]
    """How everything was measured, a line a fact; what differs between models is listed for each."""

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """All lines, group by group."""
        every = [line for lines in self.lines.values() for line in lines]
        return [(group, lines) for group in GROUPS if (lines := [line for line in every if line.quantity.group == group])]


def compare(models: Sequence[ModelRuns]) -> Comparison:
    """Put models side by side."""
    kinds = {model.recipe.data.source.kind for model in models}
    dataset = kinds.pop() if len(kinds) == 1 and kinds <= {table.dataset for table in paper().tables} else FALLBACK
    lines = _lines(models, dataset)
    recipes = [model.recipe for model in models]
    return Comparison(
        models,
        dataset,
        lines,
        [*_answers(models, lines)],
        _left_out(models, lines),
        differing(recipes),
        unfinished(models),
        _protocol(models),
    )


def _lines(models: Sequence[ModelRuns], dataset: str) -> dict[str, list[Line]]:
    quantities = dict.fromkeys(quantity for model in models for known in model.estimates for quantity in known)
    lines: dict[str, list[Line]] = {}
    for quantity in sorted(quantities, key=lambda quantity: GROUPS.index(quantity.group)):
        if quantity.key in lines:
            continue
        alike = [other for other in quantities if other.key == quantity.key]
        facts = dict.fromkeys([*quantity.named, *differing_facts(other.protocol for other in alike)])
        of_metric = []
        for other in alike:
            published = [paper().value(other.key, model.family, dataset, other.protocol) for model in models]
            of_metric.append(Line.of(other, other.protocol.describe(facts), [model.summary(other) for model in models], published))
        lines[quantity.key] = sorted(of_metric, key=lambda line: -len(line.measured))
    return lines


def _answers(models: Sequence[ModelRuns], lines: Mapping[str, list[Line]]) -> Iterator[Answer]:
    """For each question that can be answered, which model is best, or that it is undecided and between which."""
    ranked = {key: of_metric[0] for key, of_metric in lines.items() if of_metric[0].ranking}
    # where no audit can be compared: the first attack that all models were measured under, at its smallest radius
    attacks = [line for key, line in ranked.items() if line.quantity.group == ROBUSTNESS and key != "cw" and not key.startswith("worst")]
    attack = next((line for line in attacks if len(line.measured) == len(models)), None)
    accurate = ranked.get(ACCURACY.key)
    for question, key in QUESTIONS:
        line = ranked.get(key) or (attack if key.startswith("worst") else None)
        if line is None or line.ranking is None:
            continue
        first, tied, _ = line.ranking
        means = {i: summary.mean for i, summary in enumerate(line.summaries) if summary}
        if line.quantity.better == "high" and not means[first]:  # none is good at it
            continue
        bare = [models[i].name for i in (first, *sorted(tied)) if (summary := line.summaries[i]) and summary.interval is None]
        reason = "" if not tied else f"no interval for {', '.join(bare)}" if bare else "the intervals overlap"
        accuracy = accurate.cells[first] if accurate and accurate.ranking and first in accurate.ranking.behind else ""
        yield Answer(question, line, not tied, models[first], line.cells[first], [models[i] for i in sorted(tied)], reason, accuracy)


def _left_out(models: Sequence[ModelRuns], lines: Mapping[str, list[Line]]) -> list[str]:
    if len(models) < 2:
        return []
    labels: dict[str, list[str]] = {}
    names = {line.key: ", ".join(models[i].name for i in line.measured) for of_metric in lines.values() for line in of_metric}
    for of_metric in lines.values():
        if len(of_metric) > 1 and len({i for line in of_metric for i in line.measured}) > 1:
            protocols = "; ".join(f"{line.facts}: {names[line.key]}" for line in of_metric)
            labels.setdefault(f"measured under {len(of_metric)} protocols, one row each ({protocols})", []).append(
                of_metric[0].quantity.label
            )
    means = {name for line in lines.get(OOD_MEAN.key, ()) for name in dict(line.quantity.protocol.facts)["over"].split(", ")}
    for line in (line for of_metric in lines.values() for line in of_metric if is_detection(line.quantity)):
        if line.quantity.key.split(" ", 1)[1].rpartition(" ")[0] not in means:
            labels.setdefault(f"measured for {names[line.key]} only, so left out of the mean over sets", []).append(line.label)
    return [f"{', '.join(concerned)}: {reason}" for reason, concerned in labels.items()]


def _protocol(models: Sequence[ModelRuns]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for model in models:
        runs = ", ".join(f"{run.id} (step {run.checkpoint().step if run.checkpoints else 0})" for run in model.runs)
        lines.setdefault(f"runs: {runs}", []).append(model.name)
        for result in model.results[0].values():
            about = f"{result['dataset']} {result['split']}, n = {_counted(result['n'])}"
            facts = "; ".join(f"{key} {_brief(value)}" for key, value in result["protocol"].items() if value not in (None, "", {}, []))
            lines.setdefault(f"{result['command']}: {about}; {facts}", []).append(model.name)
    return [line if len(names) == len(models) else f"{', '.join(names)}: {line}" for line, names in lines.items()]


def _brief(value: Any) -> str:
    """A protocol's value on one line."""
    if isinstance(value, dict):
        parts = (public_name(key) if isinstance(inner, dict) else f"{key} {_brief(inner)}" for key, inner in value.items())
        return f"({', '.join(parts)})"
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _counted(n: Any) -> str:
    """A number of images, which a damaged result may not have."""
    return f"{n:,}" if isinstance(n, int) else quoted(n)
