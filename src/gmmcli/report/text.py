"""A comparison as text: a table on a terminal, and a page of Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from gmmcli.layout import Part, Table
from gmmcli.report.catalogue import format_value
from gmmcli.report.claims import UNDECIDED, claim_results
from gmmcli.report.compare import Answer, Comparison, Line
from gmmcli.report.published import paper

RULE = (
    "Several seeds: mean ± standard deviation over seeds. In parentheses: the 95% interval, over images unless stated otherwise. "
    "**Bold**: the best value and all whose intervals overlap with its interval. Nothing is bold unless at least one model is clearly "
    "worse. A value without an interval is never better than another."
)
BEST = " *"
"""Behind a value on a terminal, which may have no bold letters."""


def terminal(comparison: Comparison) -> list[Part]:
    """The answers, then all values, one column for each model, the best with a star."""
    table = Table(["", *(model.name for model in comparison.models)])
    blank = [""] * len(comparison.models)
    table.add("", *(_count(len(model.runs), "run") for model in comparison.models))
    for group, lines in comparison.groups:
        table.add("", *blank)
        table.add(group, *blank)
        for line in lines:
            cells = (
                "" if s is None else format_value(line.quantity, s.mean) + BEST * (i in line.best) for i, s in enumerate(line.summaries)
            )
            table.add(_label(line), *cells)
    answers = [f"{one.question} {_in_words(one)}" for one in comparison.answers]
    left_out = [f"Not compared: {line}" for line in comparison.left_out]
    rule = "Means over seeds. *: the best value and all whose intervals overlap with its interval, unless no model is clearly worse."
    return [*comparison.unfinished, *answers, table, *left_out, f"{rule} The page shows the intervals."]


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain values, for ``--json``: by model and metric, with the answers and the claims."""
    lines = [line for _, lines in comparison.groups for line in lines]
    values = {
        model.name: {
            "family": model.family,
            "runs": [run.id for run in model.runs],
            "figures": {
                line.key: {
                    **summary._asdict(),
                    "protocol": dict(line.quantity.protocol.facts),
                    "published": line.published[i],
                    "best": i in line.best,
                }
                for line in lines
                if (summary := line.summaries[i])
            },
        }
        for i, model in enumerate(comparison.models)
    }
    return {
        "schema": 1,
        "command": "report",
        "published_on": comparison.dataset,
        "values": values,
        "answers": [
            {
                "question": one.question,
                "metric": one.line.key,
                "answer": answered(one),
                "best_figure": one.model.name,
                "as_good": [model.name for model in one.tied],
                "why_undecided": one.reason,
            }
            for one in comparison.answers
        ],
        "left_out": comparison.left_out,
        "claims": [
            {"text": v.claim.text, "where": v.claim.where, "printed": v.published, "measured": v.measured, "verdict": v.verdict}
            for v in claim_results(comparison)
        ],
    }


def markdown(comparison: Comparison, title: str, about: str = "") -> str:
    """The whole report as Markdown: answers, results, claims, published tables, recipes and protocols."""
    return "\n".join(
        [
            f"# {title}",
            "",
            *([about, ""] if about else []),
            *_unfinished(comparison),
            *_answers(comparison),
            *_results(comparison),
            *_rest(comparison),
        ]
    )


def _unfinished(comparison: Comparison) -> Iterator[str]:
    if comparison.unfinished:
        yield from (*(f"- {line}" for line in comparison.unfinished), "")


def answered(one: Answer) -> str:
    """A model's name, or undecided."""
    return one.model.name if one.decided else UNDECIDED


def _in_words(one: Answer) -> str:
    """The answer with its value; where it is undecided, why, and between which models."""
    best = f"{one.model.name}, {one.line.label} {one.best}"
    if one.decided:
        return best
    return f"Undecided ({one.reason}). Best value: {best}. Not clearly worse: {', '.join(model.name for model in one.tied)}"


def _answers(comparison: Comparison) -> Iterator[str]:
    if answers := comparison.answers:
        yield from ("## Best models", "", "| question | answer | best value | not clearly worse |", "|---|---|---|---|")
        for one in answers:
            best = ("" if one.decided else f"{one.model.name}, ") + f"{one.line.label}: {one.best}"
            behind = f"; its accuracy is {one.accuracy}" if one.accuracy else ""
            tied = ", ".join(model.name for model in one.tied) + f" ({one.reason})" if one.tied else "none"
            yield _row([one.question, f"**{answered(one)}**", best + behind, tied])
        yield ""
    if left_out := comparison.left_out:
        yield from ("Not compared:", "", *(f"- {line}" for line in left_out), "")


def _results(comparison: Comparison) -> Iterator[str]:
    yield from ("## Results", "", RULE, f"In brackets: the paper's value for the same kind of model on {comparison.dataset}.", "")
    yield _row(["", *(f"{model.name} ({_count(len(model.runs), 'run')})" for model in comparison.models)])
    yield "|---|" + "---|" * len(comparison.models)
    for group, lines in comparison.groups:
        yield f"| *{group}* |" + " |" * len(comparison.models)
        for line in lines:
            cells = [
                (f"**{cell}**" if i in line.best else cell) + (f" [{format_value(line.quantity, printed)}]" if printed is not None else "")
                for i, (cell, printed) in enumerate(zip(line.cells, line.published, strict=True))
            ]
            yield _row([_label(line), *cells])
    yield ""


def _rest(comparison: Comparison) -> Iterator[str]:
    yield from ("## The paper's claims", "", "| claim | source | paper | measured | verdict |", "|---|---|---|---|---|")
    for one in claim_results(comparison):
        yield _row([one.claim.text, one.claim.where, one.published, one.measured, one.verdict])
    yield from ("", "## Published results", "")
    for table in paper().tables:
        yield from (f"**{table.name}**" + (f" {table.note}" if table.note else ""), "", _row(["", *table.metrics]))
        yield "|---|" + "---|" * len(table.metrics)
        yield from (_row([row.model, *(f"{value:g}" for value in row.values)]) for row in table.rows)
        yield ""
    if differences := comparison.differences:
        yield from ("## Differences between the recipes", "", _row(["key", *(model.name for model in comparison.models)]))
        yield "|---|" + "---|" * len(comparison.models)
        yield from (_row([f"`{key}`", *("" if value is None else f"{value}" for value in values)]) for key, values in differences.items())
        yield ""
    yield from ("## Protocol", "")
    yield from (f"- {line}" for line in comparison.protocol)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _label(line: Line) -> str:
    return line.label + {"high": " ↑", "low": " ↓", "": ""}[line.quantity.better]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
