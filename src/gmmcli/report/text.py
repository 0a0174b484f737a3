"""A comparison as text: a table on a terminal, and a page of Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gmmcli.report.catalogue import ACCURACY, said
from gmmcli.report.claims import UNDECIDED, verdicts
from gmmcli.report.compare import Answer, Comparison, Line
from gmmcli.report.published import paper
from gmmcli.report.summary import summarised

RULE = (
    "Several seeds: mean ± standard deviation over seeds. In parentheses the 95% interval, over images where nothing else is said. "
    "**Bold** is best, and whatever may be as good: its interval overlaps with the best one's. Nothing is bold where nothing is clearly "
    "behind; a figure without an interval is better than no other."
)


def terminal(comparison: Comparison) -> Group:
    """The answers, then every figure, a column a model, the best in bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for model in comparison.models:
        table.add_column(Text(f"{model.name}\n{_count(len(model.runs), 'run')}"), overflow="fold")
    for group, lines in comparison.groups:
        table.add_row(Text(group, style="bold underline"))
        for line in lines:
            cells = (
                Text("" if s is None else said(line.metric, s.mean), "bold" if i in line.best else "") for i, s in enumerate(line.summaries)
            )
            table.add_row(Text(_label(line)), *cells)
    answers = [Text(f"{one.question} {_in_words(one)}") for one in comparison.answers()]
    left_out = [Text(f"Not compared: {line}") for line in comparison.left_out()]
    rule = "Means over seeds. Bold: best, or with an interval that overlaps with the best one's, where others are clearly behind."
    return Group(*answers, table, *left_out, Text(f"{rule} The page has the intervals."))


def document(comparison: Comparison) -> dict[str, Any]:
    """Every figure as plain values, for ``--json``: by model and metric, with the answers and the claims."""
    lines = [line for _, lines in comparison.groups for line in lines]
    values = {
        model.name: {
            "family": model.family,
            "runs": [run.id for run in model.runs],
            "figures": {
                line.key: {
                    **summary._asdict(),
                    "protocol": dict(line.metric.protocol.facts),
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
                "as_good": [model.name for model in one.level],
                "why_undecided": one.why,
            }
            for one in comparison.answers()
        ],
        "left_out": comparison.left_out(),
        "claims": [
            {"text": v.claim.text, "where": v.claim.where, "printed": v.published, "measured": v.measured, "verdict": v.verdict}
            for v in verdicts(comparison)
        ],
    }


def markdown(comparison: Comparison, title: str, about: str = "") -> str:
    """The whole report as Markdown: answers, figures, claims, published tables, recipes and protocols."""
    return "\n".join([f"# {title}", "", *([about, ""] if about else []), *_answers(comparison), *_figures(comparison), *_rest(comparison)])


def answered(one: Answer) -> str:
    """The answer in a word: a model's name, or undecided."""
    return one.model.name if one.decided else UNDECIDED


def _in_words(one: Answer) -> str:
    """The answer with its figure; where it is undecided, why, and between whom."""
    figure = f"{one.model.name}, {one.line.label} {summarised(one.line.metric, one.summary)}"
    if one.decided:
        return figure
    return f"Undecided, {one.why}: {figure}; may be as good: {', '.join(model.name for model in one.level)}"


def _answers(comparison: Comparison) -> Iterator[str]:
    if answers := comparison.answers():
        yield from ("## Which is best at what", "", "| question | answer | best figure | may be as good |", "|---|---|---|---|")
        for one in answers:
            figure = f"{one.line.label}: {summarised(one.line.metric, one.summary)}"
            behind = f"; its accuracy is {summarised(ACCURACY, one.accuracy)}" if one.accuracy else ""
            level = ", ".join(model.name for model in one.level) + f" ({one.why})" if one.level else "none"
            yield _row([one.question, f"**{answered(one)}**", ("" if one.decided else f"{one.model.name}, ") + figure + behind, level])
        yield ""
    if left_out := comparison.left_out():
        yield from ("Not compared:", "", *(f"- {line}" for line in left_out), "")


def _figures(comparison: Comparison) -> Iterator[str]:
    yield from ("## Figures", "", RULE, f"In brackets what the paper printed of the same kind of model on {comparison.dataset}.", "")
    yield _row(["", *(f"{model.name} ({_count(len(model.runs), 'run')})" for model in comparison.models)])
    yield "|---|" + "---|" * len(comparison.models)
    for group, lines in comparison.groups:
        yield f"| *{group}* |" + " |" * len(comparison.models)
        for line in lines:
            cells = [
                (f"**{cell}**" if best else cell) + (f" [{said(line.metric, printed)}]" if printed is not None else "")
                for (cell, best), printed in zip(_cells(line), line.published, strict=True)
            ]
            yield _row([_label(line), *cells])
    yield ""


def _rest(comparison: Comparison) -> Iterator[str]:
    yield from ("## The paper's claims", "", "| claim | where | printed | measured | verdict |", "|---|---|---|---|---|")
    for one in verdicts(comparison):
        yield _row([one.claim.text, one.claim.where, one.published, one.measured, one.verdict])
    yield from ("", "## Published figures", "")
    for table in paper().tables:
        yield from (f"**{table.name}**" + (f" {table.note}" if table.note else ""), "", _row(["", *table.metrics]))
        yield "|---|" + "---|" * len(table.metrics)
        yield from (_row([row.model, *(f"{value:g}" for value in row.values)]) for row in table.rows)
        yield ""
    if differences := comparison.differences():
        yield from ("## Where the recipes differ", "", _row(["key", *(model.name for model in comparison.models)]))
        yield "|---|" + "---|" * len(comparison.models)
        yield from (_row([f"`{key}`", *("" if value is None else f"{value}" for value in values)]) for key, values in differences.items())
        yield ""
    yield from ("## Protocol", "")
    yield from (f"- {line}" for line in comparison.protocol())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cells(line: Line) -> list[tuple[str, bool]]:
    """What stands under each model, and whether it is best."""
    return [("" if s is None else summarised(line.metric, s), i in line.best) for i, s in enumerate(line.summaries)]


def _label(line: Line) -> str:
    return line.label + {"high": " ↑", "low": " ↓", "": ""}[line.metric.better]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
